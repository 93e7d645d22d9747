"""What crosses between a worker and its child processes, and what runs in a child: handlers of jobs with a context."""
