//! The frames that all benchmarks send and expect.

/// The mask of all client frames.
pub(crate) const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A binary frame: masked as a client's, or without a mask as a server's.
pub(crate) fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![0x82];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        size @ 0..=125 => frame.push(masked | size as u8),
        size @ 126..=0xFFFF => {
            frame.push(masked | 126);
            frame.extend((size as u16).to_be_bytes());
        }
        size => {
            frame.push(masked | 127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    frame.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
