//! Texts from a column of a Parquet file, row group after row group; pages uncompressed, in Snappy or in Zstandard.

use crate::DataError;
use crate::source::problem;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::path::Path;

/// Rows read at a time.
const ROWS: usize = 1024;

/// Calls `each` with every text of the column `field`; rows without one are left out.
pub(crate) fn read(
    file: &Path,
    field: &str,
    each: &mut dyn FnMut(&str) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let broken = |e: ParquetError| problem(file, None, format!("not a readable Parquet file: {e}"));
    let open = std::fs::File::open(file).map_err(|e| problem(file, None, format!("cannot read: {e}")))?;
    let reader = SerializedFileReader::new(open).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let Some(column) = (0..schema.num_columns()).find(|i| schema.column(*i).path().string() == field) else {
        let names: Vec<String> = schema.columns().iter().take(8).map(|c| c.path().string()).collect();
        let message =
            format!("no column \"{field}\" (it has {}); name the one with the text with `field`", names.join(", "));
        return Err(problem(file, None, message));
    };
    let (definition, repetition) = (schema.column(column).max_def_level(), schema.column(column).max_rep_level());
    for group in 0..reader.num_row_groups() {
        let values = reader.get_row_group(group).and_then(|g| g.get_column_reader(column)).map_err(broken)?;
        let ColumnReader::ByteArrayColumnReader(mut values) = values else {
            return Err(problem(file, None, format!("column \"{field}\" is not text")));
        };
        if repetition > 0 {
            return Err(problem(file, None, format!("column \"{field}\" holds lists, not text")));
        }
        loop {
            let (mut texts, mut levels): (Vec<ByteArray>, Vec<i16>) = (Vec::new(), Vec::new());
            let levels = (definition > 0).then_some(&mut levels);
            let (rows, _, _) = values.read_records(ROWS, levels, None, &mut texts).map_err(broken)?;
            if rows == 0 {
                break;
            }
            for text in &texts {
                each(text.as_utf8().map_err(broken)?)?;
            }
        }
    }
    Ok(())
}
