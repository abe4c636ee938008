"""The data set store: immutable shards of rows, a numbered log, one rule of what may be trained on.

format, durable     words and bytes; what makes a file last
shards              HDF5 files of rows
models              the files of fitted models
folder, packed      the two forms of a store on the disk
samples, reading    rows as Samples; snapshots and the lineage rule
store, locate       the object that users hold; which store is meant
verify, pack        checking; converting between the forms
standing, erasing   who writes and who purges, kept apart; a log without some images
traces              looking for bytes that must not be anywhere any more
"""

from augkit.store.locate import locate
from augkit.store.models import Model
from augkit.store.reading import RealRows, Run, Snapshot
from augkit.store.store import DatasetStore

__all__ = ["DatasetStore", "Model", "RealRows", "Run", "Snapshot", "locate"]
