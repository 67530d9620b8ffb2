//! The module in front of nodes that are made up: slots move while commands are on their way, whatever the pieces in which bytes come.
//! Each client's commands for a key are done in order and once.

use std::collections::{HashSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use podkit_dataplane::module::Setup;
use podkit_dataplane::resp::scan::put_command;
use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::{Addr, Values};
use podkit_foundation::telemetry::metrics::Registry;

use crate::redis::MODULE;
use crate::redis::fence::number;

/// Numbers that look like chance, the same for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// A slot with one key, a list.
struct Slot {
    owner: usize,
    /// To whom it is on its way, and whether its key is there already.
    moving: Option<(usize, bool)>,
    pushed: Vec<u32>,
    /// Commands that were sent elsewhere and not done yet.
    refused: HashSet<String>,
}

/// Two primaries, and who has what.
struct World {
    chance: Chance,
    ports: [u16; 2],
    slots: Vec<Slot>,
    epochs: [u64; 2],
    redirects: usize,
    /// How often it was asked who has what.
    asked: usize,
}

/// The world, and who waits until it is asked who has what.
struct Shared {
    world: Mutex<World>,
    asked: Condvar,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    /// Until somebody has learnt who has what; it may be that nobody wants to know.
    fn until_asked(&self) {
        let world = self.world();
        let asked = world.asked;
        let patience = Duration::from_millis(25);
        let waited = self
            .asked
            .wait_timeout_while(world, patience, |world| world.asked == asked);
        drop(waited.expect("no panic"));
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

impl World {
    /// Now and then something about a slot changes; not back and forth while a command is sent after it.
    fn change(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if !slot.refused.is_empty() || self.chance.below(4) > 0 {
            return;
        }
        match slot.moving {
            None => slot.moving = Some((1 - slot.owner, false)),
            Some((to, false)) => slot.moving = Some((to, true)),
            Some((to, true)) => {
                (slot.owner, slot.moving) = (to, None);
                self.epochs[to] = self.epochs.iter().max().expect("two") + 1;
            }
        }
    }

    /// What the node says to `RPUSH key number`, or to `GETRANGE key name 0`, which stands for any read.
    fn reply(&mut self, node: usize, words: &[String], asking: bool) -> String {
        let at = KEYS.iter().position(|key| *key == words[1]).expect("a key");
        self.change(at);
        let tries = self.chance.below(8) == 0 && words.last().is_some_and(|word| word == "alone");
        let (slot, number) = (&mut self.slots[at], number(words[1].as_bytes()));
        let here = match slot.moving {
            Some((_, true)) if node == slot.owner => {
                self.redirects += 1;
                slot.refused.insert(words[2].clone());
                return format!("-ASK {number} 127.0.0.1:{}\r\n", self.ports[1 - node]);
            }
            Some((to, there)) if node == to => asking && there,
            _ => node == slot.owner,
        };
        if !here {
            self.redirects += 1;
            slot.refused.insert(words[2].clone());
            return format!("-MOVED {number} 127.0.0.1:{}\r\n", self.ports[slot.owner]);
        }
        if tries {
            self.redirects += 1;
            return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n".to_owned();
        }
        slot.refused.remove(&words[2]);
        if words[0] == "RPUSH" {
            slot.pushed.push(words[2].parse().expect("a number"));
        }
        format!(":{}\r\n", slot.pushed.len())
    }

    fn nodes(&self, me: usize) -> String {
        let mut text = String::new();
        for (node, port) in self.ports.iter().enumerate() {
            let myself = if node == me { "myself," } else { "" };
            let epoch = self.epochs[node];
            text += &format!("n{node} 127.0.0.1:{port}@1 {myself}master - 0 0 {epoch} connected");
            for (slot, key) in self.slots.iter().zip(KEYS) {
                if slot.owner == node {
                    text += &format!(" {}", number(key.as_bytes()));
                }
            }
            text += "\n";
        }
        text
    }
}

/// The next command in `bytes`, and what is left of them.
fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = std::str::from_utf8(bytes).expect("plain words");
    let mut lines = text.split_inclusive("\r\n");
    let mut length = 0;
    let mut line = || {
        let line = lines.next().filter(|line| line.ends_with("\r\n"))?;
        length += line.len();
        Some(line.trim_end().to_owned())
    };
    let count: usize = line()?[1..].parse().expect("a count");
    let mut words = Vec::new();
    for _ in 0..count {
        line()?;
        words.push(line()?);
    }
    Some((words, length))
}

fn serve(mut stream: TcpStream, node: usize, shared: &Shared, seed: u64) {
    let (mut input, mut asking, mut chance) = (Vec::new(), false, Chance(seed));
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    loop {
        let (mut out, mut keyed) = (String::new(), false);
        while let Some((words, length)) = command(&input) {
            input.drain(..length);
            let mut world = shared.world();
            out += &match words[0].as_str() {
                "ASKING" | "READONLY" => "+OK\r\n".to_owned(),
                "CLUSTER" => {
                    world.asked += 1;
                    shared.asked.notify_all();
                    bulk(&world.nodes(node))
                }
                "INFO" => bulk(&format!(
                    "role:master\r\nmaster_replid:id{node}\r\nmaster_repl_offset:1\r\n"
                )),
                "ROLE" => "*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n".to_owned(),
                _ => world.reply(node, &words, asking),
            };
            asking = words[0] == "ASKING";
            keyed |= matches!(&*words[0], "RPUSH" | "GETRANGE");
        }
        let mut out = out.as_bytes();
        while !out.is_empty() {
            let length = (1 + chance.below(40) as usize).min(out.len());
            if stream.write_all(&out[..length]).is_err() {
                return;
            }
            // Now and then the others learn who has the slot before the rest comes.
            match chance.below(24) {
                0 if keyed => shared.until_asked(),
                1..8 => thread::yield_now(),
                _ => {}
            }
            out = &out[length..];
        }
        let mut more = [0; 512];
        match stream.read(&mut more) {
            Ok(0) | Err(_) => return,
            Ok(count) => input.extend_from_slice(&more[..count]),
        }
    }
}

/// Starts the nodes.
fn nodes(seed: u64) -> (Arc<Shared>, [u16; 2]) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners = [bind(), bind()];
    let port = |at: usize| listeners[at].local_addr().expect("it is bound").port();
    let ports = [port(0), port(1)];
    let slot = |at| Slot {
        owner: at % 2,
        moving: None,
        pushed: Vec::new(),
        refused: HashSet::new(),
    };
    let world = Mutex::new(World {
        chance: Chance(seed),
        ports,
        slots: (0..KEYS.len()).map(slot).collect(),
        epochs: [1, 2],
        redirects: 0,
        asked: 0,
    });
    let shared = Arc::new(Shared {
        world,
        asked: Condvar::new(),
    });
    for (node, listener) in listeners.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for (at, stream) in listener.incoming().flatten().enumerate() {
                stream.set_nodelay(true).expect("a TCP socket");
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, node, &shared, seed + at as u64));
            }
        });
    }
    (shared, ports)
}

const PUSHES: u32 = 300;

/// Pushes numbers in order to two keys, mostly without waiting for replies, and reads now and then. Each reply says how many there are by then.
fn client(listen: &Path, keys: &'static [&'static str], seed: u64) {
    let stream = UnixStream::connect(listen).expect("it is listened to");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("a duration");
    let mut writer = stream.try_clone().expect("a socket");
    let again = stream.try_clone().expect("a socket");
    let (expects, expected) = channel();
    let (answers, answered) = channel();
    let writes = thread::spawn(move || {
        let (mut chance, mut bytes) = (Chance(seed), Vec::new());
        // Where commands end that were not answered yet, and how far it has sent.
        let (mut ends, mut sent) = (VecDeque::new(), 0);
        for number in 1..=PUSHES {
            let word = number.to_string();
            for key in keys {
                let mut add = |words: &[&str]| {
                    put_command(&mut bytes, words);
                    ends.push_back(sent + bytes.len());
                    expects.send(number).expect("replies are read");
                };
                add(&["RPUSH", key, &word]);
                if chance.below(4) == 0 {
                    add(&["GETRANGE", key, &format!("r{word}"), "0"]);
                }
            }
            // In pieces, of which some are few bytes.
            while bytes.len() > 400 || (number == PUSHES && !bytes.is_empty()) {
                let length = (1 + chance.below(300) as usize).min(bytes.len());
                writer.write_all(&bytes[..length]).expect("it takes them");
                bytes.drain(..length);
                sent += length;
                if chance.below(2) == 0 && ends.front().is_some_and(|end| *end <= sent) {
                    answered.recv().expect("replies are read");
                    ends.pop_front();
                }
            }
        }
    });
    let mut replies = BufReader::new(stream);
    let mut check = |number: u32| {
        let mut line = String::new();
        replies.read_line(&mut line).expect("a reply");
        assert_eq!(line.trim_end(), format!(":{number}"), "seed {seed}");
    };
    for number in expected {
        check(number);
        // Once all is written nobody waits for it.
        answers.send(()).unwrap_or_default();
    }
    writes.join().expect("no panic");
    // One at a time: some are refused for a moment.
    for number in PUSHES + 1..=PUSHES + 20 {
        let mut bytes = Vec::new();
        let word = number.to_string();
        put_command(&mut bytes, &["RPUSH", keys[0], &word, "alone"]);
        (&again).write_all(&bytes).expect("it takes them");
        check(number);
    }
}

#[test]
fn each_command_is_done_once_and_in_order_wherever_its_slot_is() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for seed in 1..=2 {
        let (shared, ports) = nodes(seed);
        let dir = tempfile::tempdir().expect("a directory");
        let listen = dir.path().join("listen");
        let given = |name: &str| match name {
            "listen" => vec![format!("unix:{}", listen.display())],
            "cluster" => vec![format!("127.0.0.1:{}", ports[0])],
            _ => Vec::new(),
        };
        let params = MODULE.spec.params.iter().flat_map(|some| some.iter());
        let values = Values::gather(params, &|param| given(param.field), &|_| None);
        let setup = Setup {
            lifecycle: Lifecycle::new(),
            metrics: Registry::default(),
            workers: 2,
            listeners: Default::default(),
            admin: Addr::Port(0),
            drain_timeout: Duration::from_secs(1),
            settled: || {},
        };
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let service = (MODULE.build)(&values, &setup).expect("it starts");
            // Its workers end with it.
            Rc::clone(&service).start().expect("it starts");
            let client = |keys, seed| {
                let listen = listen.clone();
                tokio::task::spawn_blocking(move || client(&listen, keys, seed))
            };
            let clients = [client(&["a", "b"], seed), client(&["c", "d"], seed + 100)];
            for client in clients {
                client.await.expect("every reply was right");
            }
        });
        let world = shared.world();
        for slot in &world.slots {
            let all: Vec<u32> = (1..=slot.pushed.len() as u32).collect();
            assert_eq!(slot.pushed, all, "seed {seed}");
        }
        assert!(world.redirects > 50, "{} redirects", world.redirects);
    }
}
