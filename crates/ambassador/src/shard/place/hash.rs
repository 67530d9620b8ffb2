//! Hash functions of keys, to the bit as nutcracker has them on the machines that it runs on (x86-64: bytes have a sign there).
//!
//! They go back to libmemcached, and their names don't say all: `crc32` has 15 bits, `crc16` up to 32, `fnv1_64` and `fnv1a_64` are the
//! lower halves. Keys that were placed by them stay where they are only if all of that stays too.

use super::md5::md5;

podkit_foundation::choices! {
    /// `--hash-function`: what makes a number of a key.
    pub enum HashFunction {
        /// Jenkins' "one at a time".
        OneAtATime = "one_at_a_time",
        /// The first four bytes of MD5.
        Md5 = "md5",
        /// CRC-16 (XMODEM) in a register that nothing shortens.
        Crc16 = "crc16",
        /// Bits 16 to 30 of CRC-32.
        Crc32 = "crc32",
        /// CRC-32.
        Crc32a = "crc32a",
        /// The lower half of 64-bit FNV-1.
        Fnv1_64 = "fnv1_64",
        /// FNV-1a from the lower halves of the 64-bit start and prime.
        Fnv1a64 = "fnv1a_64",
        /// FNV-1.
        Fnv1_32 = "fnv1_32",
        /// FNV-1a.
        Fnv1a32 = "fnv1a_32",
        /// Hsieh's "SuperFastHash", from zero.
        Hsieh = "hsieh",
        /// MurmurHash2, its seed made of the length.
        Murmur = "murmur",
        /// Jenkins' lookup3 from 13, with a final mix of its own.
        Jenkins = "jenkins",
    }
}

impl HashFunction {
    /// The number of a key.
    pub fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5(key)[0],
            Self::Crc16 => crc16(key),
            Self::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32(key),
            Self::Fnv1_64 => fnv1_64(key),
            Self::Fnv1a64 => fnv1a(0x8422_2325, 0x1b3, key),
            Self::Fnv1_32 => fnv1_32(key),
            Self::Fnv1a32 => fnv1a(0x811c_9dc5, 0x0100_0193, key),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur(key),
            Self::Jenkins => jenkins(key),
        }
    }
}

/// A byte as a `char` of x86-64: one above 127 is negative, and widened so.
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| {
        let hash = hash.wrapping_add(signed(*byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    };
    let hash = key.iter().fold(0, step);
    let hash = hash.wrapping_add(hash << 3);
    let hash = hash ^ (hash >> 11);
    hash.wrapping_add(hash << 15)
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let over = rest & 0x8000 != 0;
            rest <<= 1;
            if over {
                rest ^= 0x1021;
            }
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

/// Its lower 16 bits are CRC-16/XMODEM, which is Redis Cluster's.
pub(super) fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0_u32, |crc, byte| {
        let at = (crc >> 8) as u8 ^ byte;
        (crc << 8) ^ u32::from(CRC16[usize::from(at)])
    })
}

const CRC32: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let over = rest & 1 != 0;
            rest >>= 1;
            if over {
                rest ^= 0xedb8_8320;
            }
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ CRC32[usize::from(crc as u8 ^ byte)];
    !key.iter().fold(u32::MAX, step)
}

/// The lower half alone: what carries goes up, never down.
fn fnv1_64(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(0x1b3) ^ signed(*byte);
    key.iter().fold(0x8422_2325, step)
}

fn fnv1_32(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(0x0100_0193) ^ signed(*byte);
    key.iter().fold(0x811c_9dc5, step)
}

fn fnv1a(start: u32, prime: u32, key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ signed(*byte)).wrapping_mul(prime);
    key.iter().fold(start, step)
}

fn hsieh(key: &[u8]) -> u32 {
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    let (words, rest) = key.as_chunks::<4>();
    let mut hash = 0_u32;
    for [a, b, c, d] in words {
        hash = hash.wrapping_add(pair(*a, *b));
        hash = (hash << 16) ^ (pair(*c, *d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

fn murmur(key: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        let word = (word ^ (word >> 24)).wrapping_mul(FACTOR);
        hash = hash.wrapping_mul(FACTOR) ^ word;
    }
    if !rest.is_empty() {
        hash = (hash ^ short_word(rest)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

fn jenkins(key: &[u8]) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add(key.len() as u32)
        .wrapping_add(13);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    // The last block, be it whole, is mixed in another way.
    while rest.len() > 12 {
        let (block, more) = rest.split_at(12);
        (a, b, c) = added(a, b, c, block);
        (a, b, c) = turned(a, b, c);
        rest = more;
    }
    if rest.is_empty() {
        return c;
    }
    (a, b, c) = added(a, b, c, rest);
    for (turn_b, turn_c, turn_a) in [(14, 11, 25), (16, 4, 14)] {
        c = (c ^ b).wrapping_sub(b.rotate_left(turn_b));
        a = (a ^ c).wrapping_sub(c.rotate_left(turn_c));
        b = (b ^ a).wrapping_sub(a.rotate_left(turn_a));
    }
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Up to twelve bytes, four of them to each.
fn added(a: u32, b: u32, c: u32, block: &[u8]) -> (u32, u32, u32) {
    let mut words = block.chunks(4).map(short_word);
    let mut next = |word: u32| word.wrapping_add(words.next().unwrap_or(0));
    (next(a), next(b), next(c))
}

fn turned(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    for (turn_c, turn_a, turn_b) in [(4, 6, 8), (16, 19, 4)] {
        a = a.wrapping_sub(c) ^ c.rotate_left(turn_c);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(turn_a);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(turn_b);
        b = b.wrapping_add(a);
    }
    (a, b, c)
}

/// At most four bytes, the first one lowest, and zeros.
fn short_word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
