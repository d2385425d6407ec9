"""What producers and observers use: tasks, enqueueing, handles, the inspector, the blocking bridge. No worker code."""

__version__ = "0.1.0"
"""Here, and not at the top: `tasqueue` itself imports what would have to import it."""
