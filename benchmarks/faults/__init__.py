"""Faults at every point of applying, taking back and calling: is the pipeline as it was, or under its plan, afterwards?"""
