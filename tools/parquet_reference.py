"""Small Parquet files as pyarrow writes them, for the reader of documents.

    python tools/parquet_reference.py tests/fixtures

`documents_CODEC.parquet`: 40 rows in row groups of 16, a number, a text (`content`, every seventh missing) and a list.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    texts = [None if i % 7 == 3 else f"Document {i}: 文 {'x' * (i % 5)}" for i in range(40)]
    table = pa.table({"id": list(range(40)), "content": texts, "tags": [["a"] * (i % 3) for i in range(40)]})
    for codec in ["none", "snappy", "zstd"]:
        pq.write_table(table, Path(sys.argv[1]) / f"documents_{codec}.parquet", compression=codec, row_group_size=16)
