#!/usr/bin/env bash
# The tree stays small and clean: file lengths, committed sizes, locked packages, nothing left open, no machine paths.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
bad=0
fail() { echo "size check: $*" >&2; bad=1; }
while read -r file; do
  case "$file" in */tests/* | */tests.rs) limit=1200 ;; *) limit=800 ;; esac
  lines=$(wc -l <"$file")
  [ "$lines" -le "$limit" ] || fail "$file has $lines lines, the ceiling is $limit: move one idea out"
  head -1 "$file" | grep -q '^//!\|^#!\[' || fail "$file does not open with what it is (//!)"
done < <(git ls-files '*.rs')
while read -r file; do
  bytes=$(stat -c %s "$file")
  [ "$bytes" -le 524288 ] || fail "$file has $bytes bytes, at most 512 KiB are committed"
done < <(git ls-files)
packages=$(grep -c '^name = ' Cargo.lock)
[ "$packages" -le 400 ] || fail "Cargo.lock has $packages packages, at most 400"
if git grep -nE 'todo!\(|unimplemented!\(|dbg!\(' -- '*.rs' ':!tools'; then fail "left open in the code"; fi
if git grep -nE '/(work|root|home)/[a-z]' -- ':!tools/check_sizes.sh'; then fail "machine paths"; fi
[ "$bad" = 0 ] && echo "size check: $(git ls-files '*.rs' | xargs cat | wc -l) lines of Rust, $packages packages locked"
exit "$bad"
