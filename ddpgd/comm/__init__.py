"""Communication: who the ranks are, how bytes travel, and in which order sums are taken."""
