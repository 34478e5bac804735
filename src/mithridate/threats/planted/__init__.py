"""Attackers who control training: one file a method, one import line each."""
