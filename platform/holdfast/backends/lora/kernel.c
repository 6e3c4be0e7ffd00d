/* What a pass of the encoder does between two base GEMMs, on packed rows without padding: LoRA per segment, attention, norm, mean.
 *
 * Compiled once per machine by `native.py` with the machine's own C compiler; where there is none, torch does the same.
 * Vectors are GCC's and Clang's portable ones, so there is no intrinsic in here. All arrays are float32, row-major
 * and dense unless a stride is given. Nothing is allocated.
 */
#include <math.h>
#include <stdint.h>

#if defined(__AVX__)
#define LANES 8 /* floats of a vector; 16 were no faster where AVX-512 is at hand, and rank 8 fills half of them */
#else
#define LANES 4
#endif
#define STRIP 8 /* tokens of a tile: as many as sums have room in registers */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define TOKENS 16   /* tokens of a segment that are taken together: a short text */
#define MAX_COLS 768 /* 3 x the largest rank, 256 */
#define INLINE static inline __attribute__((always_inline))

/* narrow[t, j .. j + LANES) = x[t, :] . down[:, j .. j + LANES), `nt` tokens at once: each row of `down` is read once for all. */
INLINE void shrink_lanes(const float *x, long in, const float *down, long cols, float *narrow, const int nt) {
    vec sum[STRIP];
    for (int t = 0; t < nt; t++) sum[t] = (vec){0};
    for (long i = 0; i < in; i++) {
        const vec w = *(const vec *)(down + i * cols);
        for (int t = 0; t < nt; t++) sum[t] += x[t * in + i] * w;
    }
    for (int t = 0; t < nt; t++) *(vec *)(narrow + t * MAX_COLS) = sum[t];
}

INLINE void shrink_tile(const float *x, long in, const float *down, long cols, float *narrow, const int nt) {
    long j = 0;
    for (; j + LANES <= cols; j += LANES) shrink_lanes(x, in, down + j, cols, narrow + j, nt);
    for (; j < cols; j++)
        for (int t = 0; t < nt; t++) {
            float sum = 0;
            for (long i = 0; i < in; i++) sum += x[t * in + i] * down[i * cols + j];
            narrow[t * MAX_COLS + j] = sum;
        }
}

/* y[t, o .. o + 2 LANES) += narrow[t, :] . up[:, o .. o + 2 LANES) */
INLINE void expand_tile(const float *narrow, long rank, const float *up, long out, float *y, long stride, const int nt) {
    long o = 0;
    for (; o + 2 * LANES <= out; o += 2 * LANES) {
        vec low[STRIP / 2], high[STRIP / 2];
        for (int t = 0; t < nt; t++) low[t] = *(vec *)(y + t * stride + o), high[t] = *(vec *)(y + t * stride + o + LANES);
        for (long j = 0; j < rank; j++) {
            const vec a = *(const vec *)(up + j * out + o), b = *(const vec *)(up + j * out + o + LANES);
            for (int t = 0; t < nt; t++) low[t] += narrow[t * MAX_COLS + j] * a, high[t] += narrow[t * MAX_COLS + j] * b;
        }
        for (int t = 0; t < nt; t++) *(vec *)(y + t * stride + o) = low[t], *(vec *)(y + t * stride + o + LANES) = high[t];
    }
    for (; o < out; o++)
        for (int t = 0; t < nt; t++) {
            float sum = 0;
            for (long j = 0; j < rank; j++) sum += narrow[t * MAX_COLS + j] * up[j * out + o];
            y[t * stride + o] += sum;
        }
}

/* Tiles of fewer tokens are compiled for their number, so that the last tokens of a text do not read the matrices once each. */
static void shrink(const float *x, long count, long in, const float *down, long cols, float *narrow) {
    for (long t = 0; t < count; t += STRIP) {
        const float *from = x + t * in;
        float *to = narrow + t * MAX_COLS;
        switch (count - t) {
            case 1: shrink_tile(from, in, down, cols, to, 1); break;
            case 2: shrink_tile(from, in, down, cols, to, 2); break;
            case 3: shrink_tile(from, in, down, cols, to, 3); break;
            case 4: shrink_tile(from, in, down, cols, to, 4); break;
            case 5: shrink_tile(from, in, down, cols, to, 5); break;
            case 6: shrink_tile(from, in, down, cols, to, 6); break;
            case 7: shrink_tile(from, in, down, cols, to, 7); break;
            default: shrink_tile(from, in, down, cols, to, STRIP);
        }
    }
}

static void expand(const float *narrow, long count, long rank, const float *up, long out, float *y, long stride) {
    for (long t = 0; t < count; t += STRIP / 2) {
        const float *from = narrow + t * MAX_COLS;
        float *to = y + t * stride;
        switch (count - t) {
            case 1: expand_tile(from, rank, up, out, to, stride, 1); break;
            case 2: expand_tile(from, rank, up, out, to, stride, 2); break;
            case 3: expand_tile(from, rank, up, out, to, stride, 3); break;
            default: expand_tile(from, rank, up, out, to, stride, STRIP / 2);
        }
    }
}

/* y[start .. stop, :] += (x[start .. stop, :] . down) . up for each of n segments. A linear layer has `parts` outputs side by side,
 * `out` wide each: down is [in, parts * rank], up is [parts, rank, out]. `segments` is [n, 3]: start, stop, rank. Addresses of 0 are
 * segments without LoRA in this layer. x is [tokens, in], y is [tokens, parts * out]. */
void lora_add(const float *x, float *y, const int64_t *segments, const int64_t *downs, const int64_t *ups, long n, long in, long out,
              long parts) {
    float narrow[TOKENS * MAX_COLS];
    const long stride = parts * out;
    for (long s = 0; s < n; s++) {
        const float *down = (const float *)(intptr_t)downs[s], *up = (const float *)(intptr_t)ups[s];
        const long stop = segments[3 * s + 1], rank = segments[3 * s + 2], cols = parts * rank;
        if (!down) continue;
        const long start = segments[3 * s], blocks = (stop - start + TOKENS - 1) / TOKENS, size = (stop - start + blocks - 1) / blocks;
        for (long t = start; t < stop; t += size) {
            const long count = stop - t < size ? stop - t : size;
            shrink(x + t * in, count, in, down, cols, narrow);
            for (long k = 0; k < parts; k++)
                expand(narrow + k * rank, count, rank, up + k * rank * out, out, y + t * stride + k * out, stride);
        }
    }
}

/* e^x for x <= 0, relative error about 1e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes' expf). */
INLINE vec exp_negative(vec x) {
    const ivec low = x < -87.0f; /* all ones where true */
    x = (vec)(((ivec)((vec){0} - 87.0f) & low) | ((ivec)x & ~low));
    const ivec n = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, ivec);
    const vec whole = __builtin_convertvector(n, vec);
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec p = (vec){0} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * (vec)((n + 127) << 23);
}

INLINE float sum_of(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* In place: weights[0 .. length) = softmax; what lies behind up to the next multiple of 16 is not used. */
static void softmax(float *weights, long length, long padded) {
    float most = weights[0];
    for (long j = 1; j < length; j++) most = weights[j] > most ? weights[j] : most;
    for (long j = length; j < padded; j++) weights[j] = most - 100.0f; /* e^-87 at most: nothing */
    vec sums = {0};
    for (long j = 0; j < padded; j += LANES) {
        const vec one = exp_negative(*(vec *)(weights + j) - most);
        *(vec *)(weights + j) = one;
        sums += one;
    }
    const float share = 1.0f / sum_of(sums);
    for (long j = 0; j < padded; j += LANES) *(vec *)(weights + j) *= share;
}

/* Scores and mixture of `nq` queries of one head of one row. `keys` is [width, padded], transposed. */
INLINE void attend_tile(const float *q, const float *v, const float *keys, float *weights, float *out, const long *size, const int nq) {
    const long length = size[0], padded = size[1], width = size[2], stride = size[3], hidden = size[4];
    const float scale = 1.0f / sqrtf((float)width);
    for (long j = 0; j < padded; j += LANES) {
        vec sum[4];
        for (int t = 0; t < nq; t++) sum[t] = (vec){0};
        for (long i = 0; i < width; i++) {
            const vec k = *(const vec *)(keys + i * padded + j);
            for (int t = 0; t < nq; t++) sum[t] += q[t * stride + i] * k;
        }
        for (int t = 0; t < nq; t++) *(vec *)(weights + t * padded + j) = sum[t] * scale;
    }
    for (int t = 0; t < nq; t++) softmax(weights + t * padded, length, padded);
    for (long i = 0; i < width; i += LANES) {
        vec sum[4];
        for (int t = 0; t < nq; t++) sum[t] = (vec){0};
        for (long j = 0; j < length; j++) {
            const vec one = *(const vec *)(v + j * stride + i);
            for (int t = 0; t < nq; t++) sum[t] += weights[t * padded + j] * one;
        }
        for (int t = 0; t < nq; t++) *(vec *)(out + t * hidden + i) = sum[t];
    }
}

/* Attention of n rows that lie behind one another: qkv [tokens, 3 hidden] -> out [tokens, hidden]. `ends` is [n + 1], from 0.
 * `scratch` holds (width + 4) * longest floats, longest rounded up to 16. The width of a head, hidden / heads, is a multiple of 16. */
void attend(const float *qkv, float *out, const int64_t *ends, long n, long hidden, long heads, float *scratch) {
    const long width = hidden / heads, stride = 3 * hidden;
    for (long row = 0; row < n; row++) {
        const long length = ends[row + 1] - ends[row], padded = (length + 15) & ~15L;
        const long size[5] = {length, padded, width, stride, hidden};
        float *keys = scratch, *weights = scratch + width * padded;
        for (long head = 0; head < heads; head++) {
            const float *q = qkv + ends[row] * stride + head * width, *k = q + hidden, *v = k + hidden;
            float *o = out + ends[row] * hidden + head * width;
            for (long j = 0; j < padded; j++)
                for (long i = 0; i < width; i++) keys[i * padded + j] = j < length ? k[j * stride + i] : 0.0f;
            long t = 0;
            for (; t + 4 <= length; t += 4) attend_tile(q + t * stride, v, keys, weights, o + t * hidden, size, 4);
            for (; t < length; t++) attend_tile(q + t * stride, v, keys, weights, o + t * hidden, size, 1);
        }
    }
}

/* out = layer norm of (a + b), [tokens, hidden] each; hidden is a multiple of 16. */
void add_norm(const float *a, const float *b, const float *weight, const float *bias, float *out, long tokens, long hidden, float epsilon) {
    for (long t = 0; t < tokens; t++, a += hidden, b += hidden, out += hidden) {
        vec sums = {0}, squares = {0};
        for (long i = 0; i < hidden; i += LANES) {
            const vec one = *(const vec *)(a + i) + *(const vec *)(b + i);
            *(vec *)(out + i) = one;
            sums += one;
        }
        const float mean = sum_of(sums) / (float)hidden;
        for (long i = 0; i < hidden; i += LANES) {
            const vec one = *(vec *)(out + i) - mean;
            squares += one * one;
        }
        const float scale = 1.0f / sqrtf(sum_of(squares) / (float)hidden + epsilon);
        for (long i = 0; i < hidden; i += LANES)
            *(vec *)(out + i) = (*(vec *)(out + i) - mean) * scale * *(const vec *)(weight + i) + *(const vec *)(bias + i);
    }
}

/* Mean over the tokens of each of n rows: x [tokens, hidden] -> out [n, hidden]; hidden is a multiple of 16. */
void mean_rows(const float *x, float *out, const int64_t *ends, long n, long hidden) {
    for (long row = 0; row < n; row++) {
        const float share = 1.0f / (float)(ends[row + 1] - ends[row]);
        for (long i = 0; i < hidden; i += LANES) {
            vec sum = {0};
            for (long t = ends[row]; t < ends[row + 1]; t++) sum += *(const vec *)(x + t * hidden + i);
            *(vec *)(out + row * hidden + i) = sum * share;
        }
    }
}
