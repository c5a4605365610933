"""Tables for a person."""
