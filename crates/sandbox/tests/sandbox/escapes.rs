//! Attempts to get out, to cheat and to do harm. Each runs with every layer this machine gives and once more with what is
//! left without namespaces, and after each the host is looked at.
//!
//! An attempt prints `escaped` when it got through; a verdict that ends it is as good as a refusal.

use super::{Language, SANDBOX, Verdict, config, program, submission};
use aha_sandbox::{Config, Layer, Limits, Sandbox};
use serde_json::json;
use std::path::PathBuf;
use std::sync::LazyLock;

/// As in a container that allows no namespaces.
static PLAIN: LazyLock<Option<Sandbox>> = LazyLock::new(|| {
    let disabled = vec![Layer::User, Layer::Pid, Layer::Mount, Layer::Net, Layer::Ipc];
    match Sandbox::new(Config { disabled, ..quick() }) {
        Ok(sandbox) => Some(sandbox),
        Err(e) => {
            println!("skipped without namespaces: {e}");
            None
        }
    }
});

static FULL: LazyLock<Option<Sandbox>> = LazyLock::new(|| {
    SANDBOX.as_ref()?;
    Sandbox::new(quick()).ok()
});

fn quick() -> Config {
    let limits = Limits { cpu_ms: 1_000, wall_ms: 2_500, memory: 256 << 20, output: 1 << 20, ..Limits::default() };
    Config { limits, ..config() }
}

/// A file outside that a program must neither read nor change.
struct Secret(PathBuf);

impl Secret {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("aha-sandbox-secret-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secret");
        std::fs::write(&path, "secret").unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        Self(path)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// Helpers for the attempts: raw system calls, and a way to say that one got through.
const PRELUDE: &str = r#"
import os, sys, ctypes, signal, time, errno
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*a):
    ctypes.set_errno(0)
    return libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
def escaped(what=""):
    os.write(1, b"escaped " + str(what).encode() + b"\n")
def refused(*a):
    r = syscall(*a)
    if r >= 0: escaped(a[0])
    elif ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EACCES): escaped((a[0], ctypes.get_errno()))
def attempt(f, *a, **k):
    try: r = f(*a, **k)
    except (OSError, ImportError, ValueError) as e: return None
    escaped(r)
HOST, SECRET = @HOST@, "@SECRET@"
"#;

/// Runs an attempt in both sandboxes; it must print nothing but `end`.
fn attempt(code: &str) {
    for (name, sandbox) in [("all layers", &FULL), ("without namespaces", &PLAIN)] {
        let Some(sandbox) = sandbox.as_ref() else { continue };
        if sandbox.tool_version(Language::Python).is_err() {
            println!("skipped: no Python");
            continue;
        }
        let secret = Secret::new();
        let prelude = PRELUDE.replace("@HOST@", &std::process::id().to_string());
        let prelude = prelude.replace("@SECRET@", secret.0.to_str().unwrap());
        let judged = sandbox.judge(&program(Language::Python, &format!("{prelude}\n{code}\nprint('end')"), "end"));
        assert_ne!(judged.verdict, Verdict::SandboxError, "{name}: {code}: {judged:?}");
        assert_ne!(judged.verdict, Verdict::WrongAnswer, "{name}: {code}: {judged:?}");
        assert_eq!(std::fs::read_to_string(&secret.0).unwrap(), "secret", "{name}: {code}");
        let after = sandbox.judge(&program(Language::Python, "print('well')", "well"));
        assert_eq!(after.verdict, Verdict::Accepted, "{name}: after {code}: {after:?}");
    }
}

macro_rules! attempts {
    ($($name:ident: $code:expr;)*) => { $(#[test] fn $name() { attempt($code); })* };
}

attempts! {
    tcp_connect: "import socket\nattempt(socket.create_connection, ('1.1.1.1', 80), 1)";
    udp_socket: "import socket\nattempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)";
    unix_socket: "import socket\nattempt(socket.socket, socket.AF_UNIX)";
    netlink_socket: "import socket\nattempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)";
    raw_and_packet_sockets: "import socket\nattempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)\nattempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)";
    vsock: "attempt(__import__('socket').socket, 40, 1)";
    listen_on_localhost: "import socket\ndef go():\n    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\nattempt(go)";
    name_lookup: "import socket\nattempt(socket.getaddrinfo, 'example.com', 80)";
    read_a_file_outside: "attempt(open, SECRET)";
    write_a_file_outside: "attempt(open, SECRET, 'w')";
    remove_a_file_outside: "attempt(os.remove, SECRET)";
    chmod_a_file_outside: "attempt(os.chmod, SECRET, 0)\nattempt(os.truncate, SECRET, 0)\nattempt(os.rename, SECRET, SECRET + 'x')";
    read_passwords: "for p in ('/etc/passwd', '/etc/shadow', '/etc/hostname', '/root/.ssh/id_rsa'): attempt(open, p)";
    list_home_folders: "for p in ('/root', '/home', '/work', '/var', '/etc', '/'):\n    names = []\n    try: names = os.listdir(p)\n    except OSError: pass\n    if set(names) - {'box', 'tmp', 'scratch', 'usr', 'bin', 'lib', 'lib32', 'lib64', 'libx32', 'etc', 'dev', 'root', 'opt', 'home', 'nix', 'ld.so.cache', 'alternatives', '.pyenv', 'work'}: escaped(names)";
    write_to_system_folders: "for p in ('/usr/x', '/bin/x', '/lib/x', '/etc/x', '/dev/x', '/x', '/usr/lib/python3/x'): attempt(open, p, 'w')";
    symlink_out: "attempt(lambda: (os.symlink(SECRET, 'link'), open('link').read()))";
    symlink_chain_out: "attempt(lambda: (os.symlink('/', 'root'), open('root' + SECRET).read()))";
    hard_link_out: "attempt(os.link, SECRET, 'link')";
    parent_folders: "attempt(open, '../' * 40 + SECRET[1:])";
    open_by_handle: "refused(304, 0, 0, 0)\nrefused(303, -100, b'/', 0, 0, 0)";
    chroot_out: "refused(161, b'/')\nrefused(155, b'.', b'.')";
    box_is_read_only: "attempt(open, sys.argv[0], 'w')\nattempt(open, os.path.dirname(sys.argv[0]) + '/new', 'w')\nattempt(os.remove, sys.argv[0])";
    proc_of_others: "for p in ('self/../1/environ', f'{HOST}/environ', f'{HOST}/maps', f'{HOST}/cmdline', '1/cmdline', 'kcore', 'sys/kernel/core_pattern', 'self/mem'):\n    attempt(open, '/proc/' + p, 'rb')";
    proc_parent: "attempt(os.listdir, f'/proc/{os.getppid()}/fd')\nattempt(os.listdir, '/proc')";
    sys_files: "attempt(os.listdir, '/sys')\nattempt(open, '/sys/fs/cgroup/cgroup.procs', 'w')";
    kernel_memory: "for p in ('/dev/mem', '/dev/kmem', '/dev/kmsg', '/dev/port', '/dev/vda', '/dev/sda', '/dev/fuse', '/dev/kvm', '/dev/net/tun', '/dev/tty', '/dev/ptmx', '/dev/shm/x'): attempt(open, p, 'rb')";
    make_device_nodes: "attempt(os.mknod, 'node', 0o60666, os.makedev(254, 0))\nattempt(os.mkfifo, 'fifo')";
    inherited_descriptors: "for fd in range(3, 1024):\n    try: os.fstat(fd)\n    except OSError: continue\n    if fd != 3 or not os.path.samestat(os.fstat(3), os.stat(sys.argv[0])): escaped(fd)";
    environment_is_bare: "for k, v in os.environ.items():\n    if k not in ('PATH', 'HOME', 'TMPDIR', 'LANG', 'LC_CTYPE', 'MALLOC_ARENA_MAX', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'PYTHONPATH', 'PYTHONHASHSEED', 'PYTHONSAFEPATH'): escaped(k)";
    ptrace_parent: "refused(101, 16, os.getppid(), 0, 0)\nrefused(101, 16, HOST, 0, 0)";
    ptrace_self: "refused(101, 0, 0, 0, 0)";
    memory_of_others: "refused(310, HOST, 0, 0, 0, 0, 0)\nrefused(311, HOST, 0, 0, 0, 0, 0)";
    descriptors_of_others: "refused(434, HOST, 0)\nrefused(438, 3, 0, 0)";
    kcmp: "refused(312, HOST, HOST, 0, 0, 0)";
    signal_the_host: "attempt(os.kill, HOST, 9)\nattempt(os.kill, HOST, 0)";
    signal_the_parent: "\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\ntime.sleep(0.1)\ntry: os.kill(os.getppid(), 19)\nexcept OSError: pass";
    signal_everyone: "signal.signal(15, signal.SIG_IGN)\ntry: os.kill(-1, 15)\nexcept OSError: pass";
    signal_the_group: "signal.signal(15, signal.SIG_IGN)\ntry: os.killpg(0, 15)\nexcept OSError: pass\ntry: os.killpg(HOST, 9)\nexcept OSError: pass";
    queue_signals: "refused(129, HOST, 9, 0)\nrefused(424, 3, 9, 0, 0)";
    fork_bomb: "while True:\n    try: os.fork()\n    except OSError: pass";
    fork_bomb_that_ends: "for _ in range(200):\n    try:\n        if os.fork() == 0: time.sleep(60)\n    except OSError: pass";
    thread_bomb: "import threading\nfor _ in range(10000):\n    try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    except RuntimeError: os._exit(1)\nescaped()";
    double_fork_and_setsid: "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        signal.signal(1, signal.SIG_IGN)\n        time.sleep(1000)\n    os._exit(0)";
    daemon_that_holds_the_output: "if os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)";
    vfork_exec_chain: "if os.fork() == 0:\n    os.execv('/bin/sleep', ['sleep', '1000'])";
    memory_bomb: "x = []\nwhile True: x.append(bytearray(1 << 20))";
    memory_bomb_in_children: "for _ in range(8):\n    if os.fork() == 0:\n        x = bytearray(200 << 20)\n        time.sleep(60)\ntime.sleep(60)\nescaped()";
    shared_memory_bomb: "import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 64 << 20)\n    for i in range(0, 64 << 20, 4096): m[i] = 1\n    x.append(m)";
    memory_files: "refused(319, b'x', 0)\nrefused(447, 0)";
    sysv_memory: "refused(29, 0, 1 << 20, 0o1600)\nrefused(64, 0, 1, 0o1600)\nrefused(68, 0, 0o1600)\nrefused(240, b'/x', 66, 0o600, 0)";
    output_of_10_gb: "b = b'x' * (1 << 20)\nfor _ in range(10 << 10): os.write(1, b)\nescaped()";
    error_output_of_10_gb: "b = b'x' * (1 << 20)\nfor _ in range(10 << 10): os.write(2, b)\nescaped()";
    fill_the_disk: "def go():\n    with open('big', 'wb') as f:\n        for _ in range(10 << 10): f.write(b'x' * (1 << 20))\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nattempt(go)";
    fill_the_disk_with_many_files: "def go():\n    for i in range(1000):\n        with open(f'f{i}', 'wb') as f: f.write(b'x' * (8 << 20))\nattempt(go)";
    exhaust_inodes: "def go():\n    for i in range(1000000): open(f'f{i}', 'w').close()\nattempt(go)";
    deep_folders: "def go():\n    for i in range(100000):\n        os.mkdir('d'); os.chdir('d')\nattempt(go)";
    sparse_file: "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nattempt(lambda: os.truncate(open('s', 'w').name, 1 << 40))";
    sleep_for_ever: "while True: time.sleep(1000)";
    ignore_all_signals: "for s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: time.sleep(1000)";
    spin_in_children: "for _ in range(4):\n    if os.fork() == 0:\n        while True: pass\ntime.sleep(1000)\nescaped()";
    stop_itself: "os.kill(os.getpid(), signal.SIGSTOP)";
    raise_limits: "import resource\nfor r in (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_AS):\n    attempt(resource.setrlimit, r, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))";
    raise_limits_of_the_host: "import resource\nattempt(resource.prlimit, HOST, resource.RLIMIT_CPU, (1, 1))";
    raise_priority: "attempt(os.nice, -5)\nrefused(141, 0, 0, -5)\nrefused(144, 0, 1, 0)\nrefused(203, 0, 8, b'\\xff' * 8)";
    setuid_programs: "import subprocess\nfor p in (['/bin/su', '-c', 'id'], ['/usr/bin/passwd', '-S'], ['/usr/bin/sudo', '-n', 'id'], ['/bin/mount']):\n    try:\n        out = subprocess.run(p, capture_output=True, stdin=subprocess.DEVNULL, timeout=2)\n    except (OSError, subprocess.SubprocessError): continue\n    if out.returncode == 0 and p[0] != '/bin/mount' or b'uid=0' in out.stdout: escaped(out.stdout)";
    become_root: "for f in (os.setuid, os.setgid, os.seteuid): attempt(f, 0)\nattempt(os.setgroups, [0])\nrefused(117, 0, 0, 0)\nif 0 in (os.getuid(), os.geteuid(), os.getgid()): escaped()";
    set_capabilities: "refused(126, b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0', b'\\xff' * 24)\nrefused(157, 47, 2, 21, 0, 0)";
    io_uring: "refused(425, 1, b'\\0' * 120)\nrefused(426, 0, 0, 0, 0, 0)\nrefused(427, 0, 0, 0, 0)";
    bpf: "refused(321, 0, b'\\0' * 128, 128)";
    userfaultfd: "refused(323, 0)\nrefused(323, 1)";
    perf_events: "refused(298, b'\\0' * 128, 0, -1, -1, 0)";
    keys: "refused(248, b'user', b'x', b'y', 1, -2)\nrefused(249, b'user', b'x', 0, 0)\nrefused(250, 0, -3, 0)";
    mounts: "refused(165, b'none', b'/tmp', b'tmpfs', 0, 0)\nrefused(166, b'/tmp', 2)\nrefused(428, -100, b'/', 0)\nrefused(429, -1, b'', -100, b'/', 0)\nrefused(430, b'proc', 0)\nrefused(442, -100, b'/', 0, 0, 0)";
    new_namespaces: "refused(272, 0x10000000)\nrefused(272, 0x20000)\nrefused(308, 0, 0)\nrefused(56, 0x10000011, 0, 0, 0, 0)\nrefused(435, 0, 0)";
    kernel_modules: "refused(175, 0, 0, 0)\nrefused(313, 0, 0, 0)\nrefused(176, b'x', 0)";
    reboot_and_kexec: "refused(169, 0xfee1dead, 672274793, 0x1234567, 0)\nrefused(246, 0, 0, 0, 0)\nrefused(320, 0, 0, 0, 0, 0)";
    clocks_and_names: "refused(227, 0, 0)\nrefused(164, 0, 0)\nrefused(170, b'x', 1)\nrefused(171, b'x', 1)";
    swap_and_accounting: "refused(167, b'x', 0)\nrefused(168, b'x')\nrefused(163, b'x')\nrefused(179, 0, 0, 0, 0)";
    fanotify_and_inotify: "refused(300, 0, 0)\nrefused(253,)\nrefused(294, 0)";
    personality_and_segments: "refused(135, 0x0040000)\nrefused(154, 1, 0, 16)\nrefused(172, 3)\nrefused(173, 0, 1024, 1)";
    undo_the_filters: "refused(157, 22, 0, 0, 0, 0)\nrefused(157, 38, 0, 0, 0, 0)\nrefused(157, 4, 1, 0, 0, 0)\nrefused(317, 1, 0, 0)\nrefused(446, 0, 0)";
    terminal_injection: "refused(16, 0, 0x5412, b'x')\nrefused(16, 1, 0x5412, b'x')\nrefused(16, 0, 0x541C, b'x')\nrefused(16, 0, 0x5405, 0)";
    calls_of_32_bits: "import mmap\ncode = b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3'\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(code)\nf = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nr = f()\nif r > 0: escaped(r)";
    x32_calls: "refused(0x40000000 + 39)";
    exec_from_scratch: "import shutil, subprocess\ndef go():\n    shutil.copy('/bin/true', 'own'); os.chmod('own', 0o755)\n    return subprocess.run(['./own']).returncode\nattempt(go)";
    huge_argument_exec: "attempt(os.execv, '/bin/true', ['x' * (1 << 20)] * 100)";
    closed_streams: "os.close(0); os.close(2)";
    crash_of_the_interpreter: "ctypes.string_at(0)";
    stack_overflow: "sys.setrecursionlimit(10**9)\nctypes.CFUNCTYPE(None)\nf = lambda g: g(g)\nimport functools\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)\n";
    random_devices_do_not_block: "if len(open('/dev/urandom', 'rb').read(1000)) != 1000: escaped()";
}

/// Programs that look for the tests of function calls and assertions.
fn cheat(code: &str) {
    for sandbox in [&FULL, &PLAIN] {
        let Some(sandbox) = sandbox.as_ref() else { continue };
        if sandbox.tool_version(Language::Python).is_err() {
            continue;
        }
        for tests in [
            json!({"code": code, "entry_point": "f", "tests": [{"args": [7], "expected": 424_242}]}),
            json!({"code": code, "entry_point": "f", "test": "def check(candidate):\n    assert candidate(7) == 424242"}),
            json!({"code": code, "test_list": ["assert f(7) == 424242"]}),
        ] {
            let judged = sandbox.judge(&submission(tests));
            let failed = !matches!(judged.verdict, Verdict::Accepted | Verdict::SandboxError);
            assert!(failed, "{code}: {judged:?}");
        }
    }
}

macro_rules! cheats {
    ($($name:ident: $code:expr;)*) => { $(#[test] fn $name() { cheat($code); })* };
}

cheats! {
    cheat_equals_everything: "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\ndef f(x): return A()";
    cheat_integer_that_equals_everything: "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(1)";
    cheat_by_frames: "import sys\ndef f(x):\n    g, wanted = sys._getframe(), str(606060 * 7 // 10)\n    while g:\n        for v in list(g.f_locals.values()) + list(g.f_globals.values()):\n            if v is not wanted and wanted in repr(v): return int(wanted)\n        g = g.f_back\n    return 0";
    cheat_by_collector: "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'expected' in o: return o['expected']\n    return 0";
    cheat_by_files: "import os\ndef f(x):\n    for r, d, n in os.walk('/'):\n        if r.startswith(('/usr', '/lib', '/bin')): d[:] = []; continue\n        for name in n:\n            if name in ('tests.json', 'tests.py'): return int(__import__('re').search('4242\\\\d\\\\d', open(os.path.join(r, name)).read())[0])\n    return 0";
    cheat_by_patching_asserts: "import builtins\nbuiltins.AssertionError = Exception\ndef f(x): raise AssertionError('passed')";
    cheat_by_leaving: "import os\ndef f(x): os._exit(0)";
    cheat_at_load: "import sys\nsys.exit(0)\ndef f(x): return 1";
    cheat_by_writing_to_the_channel: "import os\ndef f(x):\n    os.write(3, b'{\"ok\": null}\\n' * 3)\n    return 0";
    cheat_by_a_false_protocol: "import os\nos.write(3, b'{\"loaded\": null}\\n{\"ok\": {\"f\": {\"value\": true}}}\\n{\"ok\": true}\\n' * 5)\ndef f(x): return 0";
    cheat_by_garbage: "import os\nos.write(3, b'\\xff\\xfe nonsense\\n' * 100)\ndef f(x): return 0";
    cheat_by_unsendable_values: "import os\ndef f(x):\n    os.write(3, b'{\"ok\": {\"zz\": 1}}\\n')\n    return 0";
    cheat_by_nesting: "def f(x):\n    y = []\n    for _ in range(100000): y = [y]\n    return y";
    cheat_by_a_flood: "import os\ndef f(x):\n    while True: os.write(3, b'x' * 65536)";
    cheat_by_endless_values: "def f(x):\n    while True: yield 1";
    cheat_by_printing_the_verdict: "import os\nos.write(1, b'[{\"v\": \"ok\"}]')\ndef f(x):\n    os.write(1, b'[{\"v\": \"ok\"}]')\n    os._exit(0)";
    cheat_by_closing_the_channel: "import os\ndef f(x):\n    os.close(3)\n    return 1";
    cheat_by_killing_the_judge: "import os\ndef f(x):\n    for p in range(2, 40):\n        if p != os.getpid():\n            try: os.kill(p, 9)\n            except OSError: pass\n    return 1";
}
