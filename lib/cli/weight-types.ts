/** What weights are written as, by the names that users know. */
export const WEIGHT_TYPES = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' } as const
