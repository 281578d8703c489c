"""What `perceive` exits with: light, for commands have these at hand before they load what they need."""

DONE = 0
BAD_SPEC = 2  #: the job can't be run as it is, or another run works on its output; nothing was written
QUARANTINED = 3  #: done, with quarantined items
BUDGET_EXCEEDED = 4  #: more items failed than the job allows
FAILED = 5  #: run it again to resume
DIFFERS = 6  #: of perceive compare: two outputs differ by more than is allowed
INTERRUPTED = 130  #: run it again to resume
