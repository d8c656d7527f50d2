//! A global allocator whose large blocks begin at a line of the cache and lie in huge pages.
//!
//! Blocks of the system's allocator begin 16 bytes behind a line, so that every vector of 64 bytes would lie in two: a
//! product through matrix tiles takes half as long again. Huge pages spare the processor looking up thousands of small ones;
//! how much that gives depends on the machine. Binaries that train or generate name it as their allocator. Where memory is short,
//! [`give_back`] makes the system's allocator return what is freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Smaller blocks are left as they are.
const LARGE: usize = 1024;
/// Blocks from here on ask for huge pages, where the system gives them to those who ask.
const HUGE: usize = 4 << 20;
/// Room in front of a block: one line, or what is missing to the next one, and the system's address.
const ROOM: usize = LINE + size_of::<usize>();

/// The system's allocator with large blocks (1 KiB and more) at multiples of 64 bytes. Cleared memory and growing in place
/// stay as cheap as they are.
pub struct LineAligned;

/// Gives freed memory back to the system, where its allocator can: what lies between blocks in use now, and from now on large
/// blocks as soon as they are freed. For a process that has little memory and reuses its large buffers itself.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const M_MMAP_THRESHOLD: i32 = -3;
        /// Bytes from which a block has pages of its own: smaller than a block of the cache of keys and values.
        const OWN_PAGES: i32 = 1 << 18;
        unsafe extern "C" {
            fn malloc_trim(keep: usize) -> i32;
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: both may be called at any time, by any thread; blocks in use are left alone.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, OWN_PAGES);
            malloc_trim(0);
        }
    }
}

/// Asks for huge pages in a block that has not been touched but for its first page.
fn ask_for_huge_pages(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE {
        unsafe extern "C" {
            fn madvise(at: *mut u8, len: usize, advice: i32) -> i32;
        }
        const PAGE: usize = 2 << 20;
        const MADV_HUGEPAGE: i32 = 14;
        let (first, end) = (block.addr().next_multiple_of(PAGE), (block.addr() + size) / PAGE * PAGE);
        if first < end {
            // SAFETY: the range lies inside the block; the advice changes no contents, and a refusal changes nothing.
            unsafe { madvise(block.with_addr(first), end - first, MADV_HUGEPAGE) };
        }
    }
}

/// What the system is asked for, or none where it is asked for the same.
fn padded(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE || layout.align() > align_of::<usize>() {
        return None;
    }
    Layout::from_size_align(layout.size().checked_add(ROOM)?, align_of::<usize>()).ok()
}

/// The line inside a block of the system, in front of which the block's address is kept.
///
/// # Safety
/// The block has this layout, whose size is `ROOM` bytes more than are wanted; or it is null.
unsafe fn aligned(block: *mut u8, layout: Layout) -> *mut u8 {
    if block.is_null() {
        return block;
    }
    ask_for_huge_pages(block, layout.size());
    // SAFETY: at most ROOM bytes further, and a word in front of that.
    unsafe {
        let to = block.add(ahead(block));
        to.cast::<*mut u8>().sub(1).write(block);
        to
    }
}

/// Bytes from the address of a block to its line.
fn ahead(block: *mut u8) -> usize {
    let first = block.addr() + size_of::<usize>();
    first.next_multiple_of(LINE) - block.addr()
}

/// The system's address of a block that [`aligned`] returned.
///
/// # Safety
/// It did.
unsafe fn block(at: *mut u8) -> *mut u8 {
    unsafe { at.cast::<*mut u8>().sub(1).read() }
}

// SAFETY: every block is one of the system's allocator, or lies inside one whose address is kept in front of it; whether it
// does depends on the layout alone, which callers repeat.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match padded(layout) {
            // SAFETY: as promised by the caller; the block has the room.
            Some(padded) => unsafe { aligned(System.alloc(padded), padded) },
            // SAFETY: as promised by the caller.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match padded(layout) {
            // SAFETY: as above.
            Some(padded) => unsafe { aligned(System.alloc_zeroed(padded), padded) },
            // SAFETY: as above.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match padded(layout) {
            // SAFETY: the block was made with this layout.
            Some(padded) => unsafe { System.dealloc(block(at), padded) },
            // SAFETY: as above.
            None => unsafe { System.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: callers promise a size that fits with the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (padded(layout), padded(wanted)) {
            // SAFETY: the block was made with this layout; contents move to where the new block's line is.
            (Some(before), Some(after)) => unsafe {
                let old = block(at);
                let from = ahead(old);
                let new = System.realloc(old, before, after.size());
                if new.is_null() {
                    return null_mut();
                }
                let to = ahead(new);
                if from != to {
                    std::ptr::copy(new.add(from), new.add(to), layout.size().min(size));
                }
                aligned(new, after)
            },
            // SAFETY: as above.
            (None, None) => unsafe { System.realloc(at, layout, size) },
            // SAFETY: the old block is given back only when the new one is there.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    std::ptr::copy_nonoverlapping(at, new, layout.size().min(size));
                    self.dealloc(at, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
#[global_allocator]
static HERE: LineAligned = LineAligned;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_begin_at_a_line_and_keep_what_they_hold_while_they_grow_and_shrink() {
        let mut v: Vec<u32> = Vec::new();
        for i in 0..3 << 20 {
            v.push(i);
            if v.capacity() * 4 >= LARGE {
                assert_eq!(v.as_ptr().addr() % LINE, 0);
            }
        }
        for keep in [2 << 20, 1 << 19, 1000, 256, 255, 3] {
            v.truncate(keep);
            v.shrink_to_fit();
            assert!(v.iter().enumerate().all(|(i, x)| i as u32 == *x) && v.len() == keep);
        }
        assert!(vec![0u8; 9 << 20].iter().all(|b| *b == 0));
        let v = vec![0f32; 256];
        assert_eq!(v.as_ptr().addr() % LINE, 0);
    }

    #[test]
    fn layouts_with_an_alignment_of_their_own_keep_it() {
        for align in [1, 8, 16, 64, 4096] {
            let layout = Layout::from_size_align(5000, align).expect("a layout");
            // SAFETY: the block is used inside its 5000 or 9000 bytes and given back with its last layout.
            unsafe {
                let at = LineAligned.alloc_zeroed(layout);
                assert!(at.addr().is_multiple_of(align) && *at.add(4999) == 0);
                *at.add(4999) = 7;
                let at = LineAligned.realloc(at, layout, 9000);
                assert!(at.addr().is_multiple_of(align) && *at.add(4999) == 7);
                LineAligned.dealloc(at, Layout::from_size_align(9000, align).expect("a layout"));
            }
        }
    }
}
