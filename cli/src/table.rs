//! Columns without borders. Nothing is cut off: whoever reads them in a pipe wants all of it.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::printer::clean;

/// Rows below a header, as text without a line's end.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_is_cut_off() {
        let rows = [["r1".to_owned(), "x".repeat(200)], ["r10".to_owned(), "y".to_owned()]];
        let text = table(["NUMBER", "WHAT"], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["NUMBER  WHAT", &format!("r1      {}", "x".repeat(200)), "r10     y"]);
    }
}
