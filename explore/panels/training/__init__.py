"""The training panel: start, stop, resume and watch a training in a process of its own."""
