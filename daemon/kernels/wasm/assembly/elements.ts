// Element types as markers for generic functions: f32 is itself, i16 is bfloat16, u16 is binary16 by the bit trick, u32
// is binary16 with infinities and NaN.
//
// The trick: the bits of a binary16, 13 places up, are the bits of its value times 2^-112, subnormals included. The 2^112
// goes into the other factor (queries, weights), which costs nothing here. Exponent 31 comes out as a finite number;
// adding 1 to the exponent then carries into bit 28, which a loop can gather by OR and look at once, at its end.

export const TYPE_F32: u32 = 1;
export const TYPE_F16: u32 = 2;
export const TYPE_BF16: u32 = 3;

/** What binary16 elements lack as loaded. */
export const FOLD: f32 = 5192296858534827628530496329220096.0;

@inline
export function elementBytes(type: u32): usize {
  return type == TYPE_F32 ? 4 : 2;
}

/** Bytes of an element of marker type T. */
@inline
export function bytesOf<T>(): usize {
  return isFloat<T>() ? 4 : 2;
}

/** Whether T is binary16 by the trick, which has to be checked for exponent 31. */
@inline
export function isTrick<T>(): bool {
  return !isFloat<T>() && !isSigned<T>() && sizeof<T>() == 2;
}

/** Whether loaded elements are the values times 2^-112. */
@inline
export function isFolded<T>(): bool {
  return !isFloat<T>() && !isSigned<T>();
}

@inline
function widen<T>(halves: v128): v128 {
  if (isSigned<T>()) return i32x4.shl(halves, 16);
  const scaled = v128.and(i32x4.shl(halves, 13), i32x4.splat(0x8fffe000));
  if (sizeof<T>() == 2) return scaled;
  const magnitude = v128.and(scaled, i32x4.splat(0x7fffffff));
  const special = i32x4.ge_s(magnitude, i32x4.splat(0x0f800000));
  return v128.or(scaled, v128.and(special, i32x4.splat(0x70000000)));
}

/** Four elements. */
@inline
export function load4<T>(at: usize): v128 {
  if (isFloat<T>()) return v128.load(at);
  return widen<T>(v128.load16x4_s(at));
}

/** The first `count` < 4 elements, the rest zero. Reads nothing beyond them. */
export function loadSome<T>(at: usize, count: i32): v128 {
  let v = i32x4.splat(0);
  if (isFloat<T>()) {
    v = i32x4.replace_lane(v, 0, load<i32>(at));
    if (count > 1) v = i32x4.replace_lane(v, 1, load<i32>(at, 4));
    if (count > 2) v = i32x4.replace_lane(v, 2, load<i32>(at, 8));
    return v;
  }
  v = i32x4.replace_lane(v, 0, load<i16>(at));
  if (count > 1) v = i32x4.replace_lane(v, 1, load<i16>(at, 2));
  if (count > 2) v = i32x4.replace_lane(v, 2, load<i16>(at, 4));
  return widen<T>(v);
}

/** Gathers, for the trick, the sign of exponent 31 in bit 28. */
@inline
export function gather<T>(flags: v128, elements: v128): v128 {
  return isTrick<T>() ? v128.or(flags, i32x4.add(elements, i32x4.splat(0x00800000))) : flags;
}

@inline
export function gathered<T>(flags: v128): bool {
  return isTrick<T>() ? v128.any_true(v128.and(flags, i32x4.splat(0x10000000))) : false;
}
