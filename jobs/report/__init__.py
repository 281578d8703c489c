"""The report: a run as one HTML file for people who look before they read."""
