//! Numbers from a seed and nothing else: the same seed gives the same life of a node, whatever
//! the machine, the day or the other nodes. SplitMix64: it has one word of state and no weak seeds.

use jiff::SignedDuration;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in 0..1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.fraction() < share
    }

    pub(super) fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }

    /// One of several with the weight beside each.
    pub(super) fn weighted<T: Clone>(&mut self, among: &[(u32, T)]) -> T {
        let total: u32 = among.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(total as usize) as u32;
        for (weight, one) in among {
            if at < *weight {
                return one.clone();
            }
            at -= weight;
        }
        among[0].1.clone()
    }

    /// Seconds between two bounds, short ones as likely as long ones by magnitude.
    pub(super) fn seconds(&mut self, from: f64, to: f64) -> SignedDuration {
        let magnitude = from.ln() + (to.ln() - from.ln()) * self.fraction();
        SignedDuration::from_millis((magnitude.exp() * 1000.0) as i64)
    }

    /// The wait until an event that comes once in `mean` seconds.
    pub(super) fn wait(&mut self, mean: f64) -> SignedDuration {
        let seconds = -(1.0 - self.fraction()).ln() * mean;
        SignedDuration::from_millis((seconds * 1000.0) as i64)
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}

/// A seed made of a seed: that of the nth node, of the nth start of an agent.
pub(super) fn derived(seed: u64, number: u64) -> u64 {
    if number == 0 {
        return seed;
    }
    mix(seed ^ mix(number))
}

fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_seed_gives_the_same_numbers_again_and_another_gives_others() {
    let numbers = |seed| {
        let mut random = Random::new(seed);
        (0..5).map(|_| random.next()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(1), numbers(1));
    assert_ne!(numbers(1), numbers(2));
    assert_eq!(derived(7, 0), 7);
    assert_ne!(derived(7, 1), derived(7, 2));
}
