"""A made-up corpus whose videos, subtitles and texts tell one story, so that HERO can learn it."""
