/** Base64 with the alphabet of RFC 4648, section 5, without padding. */
export function encode(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** @throws {Error} if this is not base64url without padding */
export function decode(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[\w-]*$/.test(text)) throw new Error("not base64url");
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  // Several texts decode to the same bytes. Only one of them is encoded.
  if (encode(bytes) !== text) throw new Error("not base64url");
  return bytes;
}
