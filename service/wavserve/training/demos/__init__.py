"""Demonstrations: starts, a scripted expert, the recording of episodes, the reward. Knows no network and no torch."""
