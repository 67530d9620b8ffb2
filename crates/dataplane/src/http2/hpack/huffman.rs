//! HPACK's Huffman code (RFC 7541 section 5.2 and appendix B). Read four bits at a time: no code is shorter than five, so that a step
//! gives one byte at most. Nothing is written by it: what repeats is in the table, and the rest is not worth the work.

use std::sync::LazyLock;

/// How many bits stand for each byte: the last column of RFC 7541 appendix B.
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The codes themselves (its third column), which follow from their lengths, since the code is canonical: those of a length are counted
/// on in the order of their bytes, and a longer one begins where the shorter ones stopped.
const CODES: [u32; 256] = {
    let mut codes = [0; 256];
    let (mut code, mut bits) = (0, 5);
    while bits <= END.1 {
        let mut byte = 0;
        while byte < 256 {
            if BITS[byte] == bits {
                codes[byte] = code;
                code += 1;
            }
            byte += 1;
        }
        code <<= 1;
        bits += 1;
    }
    codes
};

/// The code of the end, which must not be in a string.
const END: (u32, u8) = (0x3fff_ffff, 30);

/// Nodes of the code's tree that are not leaves.
const NODES: usize = 256;

/// What four bits do at a node.
#[derive(Clone, Copy, Default)]
struct Step {
    next: u8,
    byte: u8,
    gives: bool,
    fails: bool,
}

struct Machine {
    steps: Vec<[Step; 16]>,
    /// A string may end here: what came since the last byte is the begin of the end's code.
    ends: [bool; NODES],
}

static MACHINE: LazyLock<Machine> = LazyLock::new(Machine::new);

/// A child in the tree.
#[derive(Clone, Copy)]
enum Child {
    None,
    Node(u8),
    Byte(u8),
}

impl Machine {
    fn new() -> Self {
        let mut tree = vec![[Child::None; 2]];
        let mut ends = [false; NODES];
        ends[0] = true;
        let mut add = |code: u32, bits: u8, byte: Option<u8>| {
            let mut node = 0;
            for at in (0..bits).rev() {
                let bit = usize::from(code >> at & 1 == 1);
                if at == 0 {
                    tree[node][bit] = byte.map_or(Child::None, Child::Byte);
                    return;
                }
                let next = match tree[node][bit] {
                    Child::Node(next) => next,
                    _ => {
                        let next = u8::try_from(tree.len()).expect("as many nodes as bytes");
                        tree.push([Child::None; 2]);
                        tree[node][bit] = Child::Node(next);
                        next
                    }
                };
                node = usize::from(next);
                // At most seven bits of padding.
                if byte.is_none() && bits - at <= 7 {
                    ends[node] = true;
                }
            }
        };
        for byte in 0..=u8::MAX {
            let at = usize::from(byte);
            add(CODES[at], BITS[at], Some(byte));
        }
        add(END.0, END.1, None);
        let steps = (0..tree.len()).map(|node| steps(&tree, node)).collect();
        Self { steps, ends }
    }
}

fn steps(tree: &[[Child; 2]], from: usize) -> [Step; 16] {
    let mut steps = [Step::default(); 16];
    for (bits, step) in steps.iter_mut().enumerate() {
        let mut node = from;
        for at in (0..4).rev() {
            match tree[node][bits >> at & 1] {
                Child::Node(next) => node = usize::from(next),
                Child::Byte(byte) => {
                    (step.byte, step.gives) = (byte, true);
                    node = 0;
                }
                Child::None => {
                    step.fails = true;
                    break;
                }
            }
        }
        step.next = u8::try_from(node).expect("as many nodes as bytes");
    }
    steps
}

/// Appends what `coded` says. None when it is not right.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let machine = &*MACHINE;
    let mut node = 0;
    for byte in coded {
        for nibble in [byte >> 4, byte & 15] {
            let step = machine.steps[node][usize::from(nibble)];
            if step.fails {
                return None;
            }
            if step.gives {
                out.push(step.byte);
            }
            node = usize::from(step.next);
        }
    }
    machine.ends[node].then_some(())
}

/// The code of a byte, and its bits.
#[cfg(test)]
pub(super) fn code(byte: u8) -> (u32, u8) {
    let at = usize::from(byte);
    (CODES[at], BITS[at])
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut held, mut bits) = (Vec::new(), 0_u64, 0);
    for byte in text {
        let at = usize::from(*byte);
        held = held << BITS[at] | u64::from(CODES[at]);
        bits += u32::from(BITS[at]);
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    if bits > 0 {
        out.push((held << (8 - bits)) as u8 | 0xff >> bits);
    }
    out
}
