"use strict";
// Clips that belong together play together, by one button: the first one leads, the others are kept beside it.
for (const card of document.querySelectorAll(".plays")) {
  const clips = [...card.querySelectorAll("video")];
  const [leader, ...others] = clips;
  const button = card.querySelector(".play");
  const word = button.querySelector("span");
  const time = card.querySelector(".time");
  const APART = 0.06; // seconds, which nobody sees
  let frame = 0;

  const hear = (which) => clips.forEach((clip, number) => { clip.muted = String(number) !== which; });
  const show = (playing) => {
    card.classList.toggle("playing", playing);
    word.textContent = playing ? "Pause" : "Play";
  };
  const together = (at) => others.forEach((clip) => {
    if (Math.abs(clip.currentTime - at) > APART) clip.currentTime = Math.min(at, clip.duration || at);
  });
  const tick = () => {
    together(leader.currentTime);
    time.value = leader.duration ? leader.currentTime / leader.duration : 0;
    frame = leader.paused ? 0 : requestAnimationFrame(tick);
  };
  const pause = () => {
    clips.forEach((clip) => clip.pause());
    show(false);
  };
  const play = async () => {
    if (leader.ended || leader.currentTime >= leader.duration) clips.forEach((clip) => { clip.currentTime = 0; });
    together(leader.currentTime);
    show(true);
    for (const other of document.querySelectorAll(".playing")) {
      if (other !== card) other.querySelector(".play").click();
    }
    try {
      await Promise.all(clips.map((clip) => clip.play()));
    } catch (refused) {
      pause();
      return;
    }
    if (!frame) frame = requestAnimationFrame(tick);
  };

  clips.forEach((clip) => {
    clip.controls = false;
    clip.addEventListener("click", () => button.click());
  });
  button.addEventListener("click", () => (card.classList.contains("playing") ? pause() : play()));
  leader.addEventListener("ended", () => { pause(); time.value = 1; });
  card.querySelectorAll("input[type=radio]").forEach((radio) => radio.addEventListener("change", () => hear(radio.value)));
  hear("0");
  card.querySelector(".controls").hidden = false;
}
