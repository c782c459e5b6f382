"""Several processes tune one model: forward passes are dealt to ranks, and only losses travel between them.

    rendezvous.py  ranks of a launcher find each other
    transport.py   bytes to the chief and back
    heartbeat.py   which ranks are alive, and why one ended
    schedule.py    which rank measures what
    timings.py     what each rank did, and what it took
    packing.py     losses as bytes
    rows.py        losses of a forward pass that is shared by rows
    device.py      which device is a rank's own
    team.py        the ranks of a run: chief, oracle, evaluation
    session.py     what a rank gets from the chief before the first forward
    tune.py        the same from Python: forq.tune_on_ranks
    replica.py     what a worker of another engine holds

Every rank holds the whole model, decides by the same recorded losses and applies the same move. So replicas agree bit
for bit, whatever device or kernel measured a loss. The *chief* is the rank that writes the run's folder.
"""
