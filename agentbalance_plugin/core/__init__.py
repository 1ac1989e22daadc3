"""The learned part: one module per stage of the method, traces and replay."""
