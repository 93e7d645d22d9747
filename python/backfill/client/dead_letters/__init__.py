"""The client's verbs that list, requeue and delete dead letters: jobs that are not tried again."""
