"""Schedules: a job at its times, each time once, whoever looks and however often."""
