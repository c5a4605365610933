"""The stages of the data flow and how they are composed."""
