"""Tests of the engine, one folder for each way of looking at it; README.md says which."""
