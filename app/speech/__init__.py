"""Speech to text at the terminal: recordings, the microphone, and what is written down."""
