"""Decoding video with its sound (PyAV) and images (Pillow) into what the models take."""
