"""``gandist doctor``: what is wrong here, and what to do about it.

::

    examine     which checks, in which order, on one process or on all ranks
    finding     what a check returns, and how it is kept from breaking or hanging
    page        findings for a person or as JSON

    software  devices  storage  network  tracking  slurm      this machine
    launch                                                    what only all ranks together can tell
    recipe                                                    the data and the folder of a run
    trial  verdict                                            real rounds played, and what follows from their figures

A check is a function that returns findings; it changes nothing that it does not put back.
"""
