//! Takes the mask off a payload while it moves to its place (RFC 6455, section 5.3).

/// Moves `length` bytes down from `from` to `to`, and takes off their mask on the way. The first byte of `key` belongs
/// to the byte at `from`.
///
/// The places may overlap. A lane is loaded before any byte of it is overwritten, and since bytes only move towards
/// the front, a store never reaches a lane that is still to be loaded.
///
/// # Panics
///
/// If `to` is behind `from`, or the bytes are not all there.
#[inline]
pub(crate) fn unmask(bytes: &mut [u8], from: usize, to: usize, length: usize, key: [u8; 4]) {
    let shift = from - to;
    let window = &mut bytes[to..from + length];
    match length {
        64.. => unmask_lanes::<64>(window, shift, key), // four, two or one vector registers
        32.. => unmask_lanes::<32>(window, shift, key),
        16.. => unmask_lanes::<16>(window, shift, key),
        8.. => unmask_lanes::<8>(window, shift, key),
        4.. => unmask_lanes::<4>(window, shift, key),
        _ => (0..length).for_each(|i| window[i] = window[i + shift] ^ key[i]),
    }
}

/// Does it for all but the first `shift` bytes of the window, in lanes. The last lane ends where the window does and
/// overlaps the one before it, so that no single bytes are left over; it is loaded before anything is stored.
#[inline]
fn unmask_lanes<const LANE: usize>(window: &mut [u8], shift: usize, key: [u8; 4]) {
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

    /// Every length that the lanes cut in another way, for every distance up to beyond the longest lane.
    #[test]
    fn moves_and_unmasks_as_one_byte_at_a_time_does() {
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
                unmask(&mut bytes, from, to, length, key);
                // What lies between the two is left over, and may be anything.
                assert_eq!(bytes[..to + length], expected[..to + length], "{length} bytes by {distance}");
                assert_eq!(bytes[from + length..], expected[from + length..], "{length} bytes by {distance}");
            }
        }
    }
}
