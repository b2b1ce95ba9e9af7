//! Unmasks a payload while it moves to its place (RFC 6455, section 5.3).
//!
//! The code is written in lanes of a fixed size, which the compiler vectorises.

/// Moves all but the first `shift` bytes of the window to its front, and unmasks them on the way.
///
/// The first byte of `key` belongs to the first of these bytes. Bytes between the new end of the payload and its old
/// start may have any value afterwards.
///
/// A lane is loaded before any byte of it is overwritten. Since bytes only move towards the front, a store never
/// reaches a lane that is still to be loaded.
///
/// # Panics
///
/// If the window is shorter than `shift`.
#[inline(always)] // a call would take as long as a short payload
pub(crate) fn unmask(window: &mut [u8], shift: usize, key: [u8; 4]) {
    let length = window.len() - shift;
    // Two overlapping lanes cover a short payload.
    match length {
        33..=64 => unmask_ends::<32>(window, shift, key),
        65..=128 => unmask_ends::<64>(window, shift, key),
        129.. => unmask_lanes(window, shift, key),
        17..=32 => unmask_ends::<16>(window, shift, key),
        8..=16 => unmask_ends::<8>(window, shift, key),
        4..=7 => unmask_ends::<4>(window, shift, key),
        _ => (0..length).for_each(|i| window[i] = window[i + shift] ^ key[i]),
    }
}

/// [Unmasks](unmask) a payload of one to two lanes.
///
/// The first and the last lane may overlap, so both are loaded before the first store.
#[inline]
fn unmask_ends<const LANE: usize>(window: &mut [u8], shift: usize, key: [u8; 4]) {
    let key = u32::from_le_bytes(key);
    let payload = &window[shift..];
    let last = payload.len() - LANE;
    let (Some(first_lane), Some(last_lane)) = (payload.first_chunk::<LANE>(), payload.last_chunk::<LANE>()) else {
        return;
    };
    let (first_lane, last_lane) =
        (unmasked(*first_lane, key), unmasked(*last_lane, key.rotate_right((8 * last) as u32)));
    window[..LANE].copy_from_slice(&first_lane);
    window[last..last + LANE].copy_from_slice(&last_lane);
}

/// [Unmasks](unmask) a payload of any number of lanes.
///
/// The last lane ends with the window and overlaps the lane before it, so that no single bytes remain. It is loaded
/// before the first store.
#[inline(never)]
fn unmask_lanes(window: &mut [u8], shift: usize, key: [u8; 4]) {
    const LANE: usize = 64; // four vector registers
    let key = u32::from_le_bytes(key);
    let last = window.len() - shift - LANE;
    let Some(lane) = window.last_chunk::<LANE>() else { return };
    let last_lane = unmasked(*lane, key.rotate_right((8 * last) as u32));
    let mut at = 0;
    while at < last
        && let Some(lane) = window[at + shift..].first_chunk::<LANE>()
    {
        let lane = unmasked(*lane, key);
        window[at..at + LANE].copy_from_slice(&lane);
        at += LANE;
    }
    window[last..last + LANE].copy_from_slice(&last_lane);
}

#[inline]
fn unmasked<const LANE: usize>(mut lane: [u8; LANE], key: u32) -> [u8; LANE] {
    for word in lane.as_chunks_mut().0 {
        *word = (u32::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    lane
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For all lengths that the lanes divide differently, and all distances up to a longer one.
    #[test]
    fn lanes_move_and_unmask_like_single_bytes() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for length in 0..200 {
            for distance in 0..80 {
                let before: Vec<u8> = (0..3 + distance + length + 3).map(|i| i as u8).collect();
                let (from, to) = (3 + distance, 3);
                let mut expected = before.clone();
                for i in 0..length {
                    expected[to + i] = before[from + i] ^ key[i % 4];
                }
                let mut bytes = before;
                unmask(&mut bytes[to..from + length], distance, key);
                // Bytes between the two may have any value.
                assert_eq!(bytes[..to + length], expected[..to + length], "{length} bytes by {distance}");
                assert_eq!(bytes[from + length..], expected[from + length..], "{length} bytes by {distance}");
            }
        }
    }
}
