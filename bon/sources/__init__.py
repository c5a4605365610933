"""Input files and Hub datasets of many shapes, read row by row into prompts."""
