//! Descriptors from one process to another, over a Unix socket, with the bytes they belong to.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors in one message.
const MOST: usize = 8;

/// Room for the descriptors of one message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Room([u8; 64]);

/// Sends `bytes` as one message with `fds`, copies of which the receiver gets.
///
/// # Errors
/// The other side is gone, or did not read in time.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= MOST, "more descriptors than fit a message");
    let mut room = Room([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: zeros are a valid message header; the pointers set below are to live buffers, and CMSG_SPACE(MOST * 4) bytes fit
    // the room, whose alignment is that of a control header. sendmsg only reads them.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            let length = std::mem::size_of_val(fds) as u32;
            message.msg_control = room.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), length as usize);
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    match sent {
        n if n < 0 => Err(io::Error::last_os_error()),
        n if n as usize == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives one message of at most `most` bytes and the descriptors that came with it, closed on exec; no bytes when the
/// other side is gone.
///
/// # Errors
/// What the system said.
pub fn receive(socket: BorrowedFd<'_>, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; most];
    let mut room = Room([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut fds = Vec::new();
    // SAFETY: as in `send`; the kernel writes at most the given lengths, and every descriptor of a rights header is new and owned
    // by nobody else.
    let got = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = room.0.len() as _;
        let got = loop {
            let got = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            if got >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break got;
            }
        };
        let mut header = if got < 0 { std::ptr::null_mut() } else { libc::CMSG_FIRSTHDR(&message) };
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend((0..count).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        got
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    bytes.truncate(got as usize);
    Ok((bytes, fds))
}

/// Two ends of a connection that keeps messages apart.
///
/// # Errors
/// What the system said.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for both descriptors, which are then owned by nobody else.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (ours, theirs) = message_pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        send(ours.as_fd(), b"two", &[reader.as_raw_fd(), writer.as_raw_fd()]).unwrap();
        send(ours.as_fd(), b"none", &[]).unwrap();
        let (bytes, fds) = receive(theirs.as_fd(), 100).unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (b"two".as_slice(), 2));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut fds = fds.into_iter();
        let mut copy = std::fs::File::from(fds.next().unwrap());
        drop(fds);
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert!(matches!(receive(theirs.as_fd(), 100).unwrap(), (b, f) if b == b"none" && f.is_empty()));
        drop(ours);
        assert!(receive(theirs.as_fd(), 100).unwrap().0.is_empty());
    }
}
