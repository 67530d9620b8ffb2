//! How many different members a set had: exact up to some hundred, by HyperLogLog (Flajolet et al. 2007) beyond, 1.6 % off as a rule.

use super::window::Sketch;

/// Members that are kept one by one.
const EXACT: usize = 512;
/// Of a hash, those that choose the register.
const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;

/// A set, by the hashes of its members.
#[derive(Debug)]
pub(super) enum Distinct {
    /// Ascending.
    Few(Vec<u64>),
    /// Of each register the longest run of zeros, and one.
    Many(Box<[u8; REGISTERS]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Distinct {
    /// A member, by a hash that is as good as random.
    pub(super) fn add(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > EXACT {
                        self.many();
                    }
                }
            }
            Self::Many(registers) => note(registers, hash),
        }
    }

    fn many(&mut self) -> &mut [u8; REGISTERS] {
        if let Self::Few(hashes) = self {
            let mut registers = Box::new([0; REGISTERS]);
            for hash in hashes {
                note(&mut registers, *hash);
            }
            *self = Self::Many(registers);
        }
        match self {
            Self::Many(registers) => registers,
            Self::Few(_) => unreachable!("made above"),
        }
    }

    /// How many there are.
    #[expect(clippy::cast_precision_loss, reason = "counts up to 4096")]
    pub(super) fn count(&self) -> f64 {
        let registers = match self {
            Self::Few(hashes) => return hashes.len() as f64,
            Self::Many(registers) => registers,
        };
        let all = REGISTERS as f64;
        let sum: f64 = registers
            .iter()
            .map(|run| 0.5_f64.powi((*run).into()))
            .sum();
        let estimate = 0.7213 / (1.0 + 1.079 / all) * all * all / sum;
        let empty = registers.iter().filter(|run| **run == 0).count() as f64;
        // Where many registers are empty, their number says more.
        match estimate <= 2.5 * all && empty > 0.0 {
            true => (all * (all / empty).ln()).round(),
            false => estimate.round(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "12 bits, and a count of bits"
)]
fn note(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = (hash >> (64 - BITS)) as usize;
    let run = ((hash << BITS) | 1 << (BITS - 1)).leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(run);
}

impl Sketch for Distinct {
    fn merge(&mut self, other: &Self) {
        match other {
            Self::Few(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            Self::Many(theirs) => {
                for (own, their) in self.many().iter_mut().zip(theirs.iter()) {
                    *own = (*own).max(*their);
                }
            }
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
