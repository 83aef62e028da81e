"""`mc1opt explain`: which of the differences between two configs of a study bring what, by trainings.

explain   trains what an ablation asks for, and stores what it finds
plan      which two configs, the fidelity, and the time that it takes
ablation  the path from one config to the other, and what can be left out
groups    two configs as groups of differences, and any of them applied
result    an explanation as JSON and as text
"""
