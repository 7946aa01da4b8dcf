"""The one exception that is meant to be read by the person who made the mistake."""


class VgeoError(Exception):
    """One line that names the file or value at fault and says what to do; shown without a trace by the command line."""
