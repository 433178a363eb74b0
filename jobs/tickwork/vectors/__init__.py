"""Corpora, the model, the pass that embeds, and exact search."""

import os

# A thread that has nothing to do gives its core away instead of spinning: at every step of the network all threads wait
# for each other, and on a machine with others at work spinning makes two threads several times slower than one. It is
# read when torch and FAISS are loaded, which is never before this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
