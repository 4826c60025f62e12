"""A synthetic corpus with consistent videos, subtitles and texts, which HERO can learn from."""
