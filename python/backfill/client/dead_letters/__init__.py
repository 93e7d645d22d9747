"""Dead letters: jobs that are not tried again; they are listed, requeued and deleted here."""
