"""All that an index records of its films, as plain values that can be compared."""

from search.store import Index


def content(index: Index) -> dict[str, tuple]:
    """Return file, length, note, segments with their frames, and lines of each film, by name."""
    films = {}
    for film in index.films:
        segments = [index.segments[number] for number in index.segments_of[film.id]]
        films[film.name] = (
            *(film.file, film.seconds, film.note),
            [
                (s.first_frame, index.frames[s.first_row : s.first_row + s.rows].tobytes())
                for s in segments
            ],
            [(line.start, line.end, line.text) for line in index.lines(film.id)],
        )
    return films
