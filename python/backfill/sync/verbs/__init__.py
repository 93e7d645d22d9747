"""The verbs of the synchronous client, written by tools/sync_verbs.py from those of `backfill.client`."""
