"""The report of an audit: its schema for programs, its page for people."""
