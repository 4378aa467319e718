/* The steps of one LSTM layer over a window, forward and backward, in float32.
 *
 * The product of the recurrent weights with the state is made here as well, for two reasons.
 * The weights stay the same for all steps, so they are packed once a window and not, as in a
 * BLAS, at every step; and the gates are computed while the sums are still in registers.
 *
 * All arrays are feature-major, (features, batch), but for those that meet the outside (hs,
 * gy). A thread owns some of the units, computes these for every step, and meets the others
 * after each step. Every number is the same sequence of operations whatever the number of
 * threads. What is not a number, or infinite, goes on as in NumPy.
 */
#include "kernel.h"

/* A tile of the product is ROWS x WIDE vecs of sums, which stay in registers. Forward its rows are
 * the four gates of ROWS / 4 units. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 8, WIDE = 2 };     /* 16 of 32 registers */
#else
enum { ROWS = 4, WIDE = 3 };     /* 12 of 16 */
#endif
enum { PAIR = ROWS / 4 };
/* What all tiles of a thread share of the right side stays in the L1 cache: as much of the depth,
 * and of the batch. */
enum { DEEP = 128, COLUMNS = 64 };

struct window {
    int64_t steps, batch, units;  /* T, B, H: B a multiple of LANES, H of ROWS */
    int64_t stride;               /* floats from a step to the next in gates (4 H B), or 0 */
    const float *w_h;             /* (4H, H) */
    float *packed;                /* (4H H), for the tiles of w_h or of its transpose */
    const float *bias;            /* (4H) */
    float *z;                     /* (4H, T, B): w_x x, without bias; backward: its gradient */
    float *gates;                 /* (T, 4H, B): i, f, o, g */
    float *c, *tanh_c;            /* (T + 1, H, B) and (T, H, B) */
    float *hs;                    /* (T + 1, B, H) */
    float *h;                     /* (H, B): the state; backward: gradient that passed by */
    float *exchange;              /* 2 (H, B) forward, 2 (4H, B) backward */
    const float *gy;              /* (T, B, H) or null */
    float *gh, *gc;               /* (H, B): gradient of h before the first step (or null), c */
    const float *mask;            /* (T, B) of 0 and 1, or null */
    const float *recurrent_mask;  /* (H, B) or null */
    atomic_long met;              /* threads that arrived so far */
};

static void meet(struct window *p, long ranks, long *turn)
{
    *turn += ranks;
    atomic_fetch_add(&p->met, 1);
    for (long spins = 0; atomic_load(&p->met) < *turn; spins++)
        if (spins > 200)
            sched_yield();
}

/* A rational function fitted to tanh x / x on [0, 9]; error below 4e-7. */
INLINE vec tanh_of(vec x)
{
    const vec top = (vec){0} + 9;
    x = choose(x > top, top, x);    /* so that what is not a number stays as it is */
    x = choose(x < -top, -top, x);
    const vec s = x * x;
    const vec n = (((s * 1.3354546801735978e-8f + 2.0608997147064656e-5f) * s
                    + 3.4955828450620174e-3f) * s + 0.13381020724773407f) * s + 1;
    const vec d = (((s * 7.776510528856306e-7f + 3.285626298747957e-4f) * s
                    + 0.025876961648464203f) * s + 0.46714335680007935f) * s + 1;
    return x * n / d;
}

INLINE vec sigmoid_of(vec x) { return tanh_of(x * 0.5f) * 0.5f + 0.5f; }

/* A part of the product's depth: n of it from k on. */
struct part {
    int64_t k, n;
    int last;
};

/* sums (ROWS, wide vecs) of w (d.n, ROWS) times x (d.n, batch) and of the parts before. They wait for
 * the next part in memory: `together` rows of the batch from `waiting` on, the next so many `apart`
 * floats behind. */
INLINE void product(const float *w, const float *x, int64_t batch, int wide, struct part d,
                    float *waiting, const int together, int64_t apart, vec sums[ROWS][WIDE])
{
#define WAITING(r, v) (waiting + (r) / together * apart + (r) % together * batch + (v) * LANES)
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < wide; v++)
            sums[r][v] = (vec){0};
    if (d.k)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < wide; v++)
                sums[r][v] = LOAD(WAITING(r, v));
    for (int64_t k = 0; k < d.n; k++, w += ROWS, x += batch) {
        vec column[WIDE];
#pragma GCC unroll 3
        for (int v = 0; v < wide; v++)
            column[v] = LOAD(x + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
            for (int v = 0; v < wide; v++)
                sums[r][v] += column[v] * w[r];
    }
    if (!d.last)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < wide; v++)
                STORE(WAITING(r, v), sums[r][v]);
#undef WAITING
}

/* Units from u on and `wide` vecs of the batch from b on, at step t. Sums wait where the gates
 * will be. */
INLINE void forward_tile(const struct window *p, int64_t t, int64_t u, int64_t b, int wide,
                         struct part d)
{
    const int64_t H = p->units, B = p->batch, all = H * B;
    const float *from = p->exchange + t % 2 * all;
    float *to = p->exchange + (t + 1) % 2 * all;
    float *gates = p->gates + t * p->stride;
    vec sums[ROWS][WIDE];
    if (d.last)   /* what comes after the product is fetched while it is made */
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < wide; v++)
                __builtin_prefetch(p->z + ((r / PAIR * H + u + r % PAIR) * p->steps + t) * B
                                   + b + v * LANES);
    product(p->packed + d.k * 4 * H + u * 4 * d.n, from + d.k * B + b, B, wide, d,
            gates + u * B + b, PAIR, all, sums);
    if (!d.last)
        return;
    for (int v = 0; v < wide; v++)
        for (int j = 0; j < PAIR; j++) {
            const int64_t row = u + j, column = b + v * LANES, at = row * B + column;
            vec gate[4];
            for (int k = 0; k < 4; k++)
                gate[k] = sums[k * PAIR + j][v] + p->bias[k * H + row]
                    + LOAD(p->z + ((k * H + row) * p->steps + t) * B + column);
            for (int k = 0; k < 4; k++) {
                gate[k] = k < 3 ? sigmoid_of(gate[k]) : tanh_of(gate[k]);
                STORE(gates + k * all + at, gate[k]);
            }
            float *c_at = p->c + t * (p->stride / 4) + at;
            const vec c_last = LOAD(c_at);
            vec c = gate[1] * c_last + gate[0] * gate[3];
            const vec tanh_c = tanh_of(c);
            vec h = gate[2] * tanh_c;
            if (p->mask) {
                const bits on = LOAD(p->mask + t * B + column) != (vec){0};
                c = choose(on, c, c_last);
                h = choose(on, h, LOAD(p->h + at));
            }
            STORE(p->h + at, h);
            STORE(c_at + p->stride / 4, c);
            STORE(p->tanh_c + t * (p->stride / 4) + at, tanh_c);
            if (p->recurrent_mask)
                h *= LOAD(p->recurrent_mask + at);
            STORE(to + at, h);
        }
}

/* h of the units of one thread to hs. */
static void put_out(const struct window *p, int64_t t, int64_t first, int64_t last)
{
    const int64_t H = p->units, B = p->batch;
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = first; u < last; u += ROWS)
            for (int r = 0; r < ROWS; r++)
                p->hs[((t + 1) * B + b) * H + u + r] = p->h[(u + r) * B + b];
}

/* tile(p, t, u, b, wide, d) for all units of a thread, `step` at a time, and all columns, part by
 * part of the depth. */
#define TILES(tile, step, depth) do {                                                   \
        for (int64_t from = 0; from < p->batch; from += COLUMNS) {                      \
            const int64_t end = from + COLUMNS < p->batch ? from + COLUMNS : p->batch;  \
            struct part d = {0, 0, 0};                                                  \
            do {                                                                        \
                d.n = depth - d.k < DEEP ? depth - d.k : DEEP;                          \
                d.last = d.k + d.n == depth;                                            \
                for (int64_t u = first; u < last; u += step)                            \
                    for (int64_t b = from; b < end;) {                                  \
                        const int64_t left = (end - b) / LANES;                         \
                        if (WIDE > 2 && left >= 3 && left != 4) {                       \
                            tile(p, t, u, b, WIDE, d);                                  \
                            b += WIDE * LANES;                                          \
                        } else if (left >= 2) {                                         \
                            tile(p, t, u, b, 2, d);                                     \
                            b += 2 * LANES;                                             \
                        } else {                                                        \
                            tile(p, t, u, b, 1, d);                                     \
                            b += LANES;                                                 \
                        }                                                               \
                    }                                                                   \
                d.k += d.n;                                                             \
            } while (!d.last);                                                          \
        }                                                                               \
    } while (0)

static void forward_part(void *window, int64_t rank, int64_t ranks)
{
    struct window *p = window;
    const int64_t H = p->units, tiles = H / ROWS;
    const int64_t first = tiles * rank / ranks * ROWS, last = tiles * (rank + 1) / ranks * ROWS;
    long turn = 0;
    for (int64_t k = 0; k < H; k += DEEP) {
        const int64_t n = H - k < DEEP ? H - k : DEEP;
        for (int64_t u = first; u < last; u += PAIR) {
            float *tile = p->packed + k * 4 * H + u * 4 * n;
            for (int64_t i = 0; i < n; i++)
                for (int r = 0; r < ROWS; r++)
                    tile[i * ROWS + r] = p->w_h[(r / PAIR * H + u + r % PAIR) * H + k + i];
        }
    }
    for (int64_t t = 0; t < p->steps; t++) {
        TILES(forward_tile, PAIR, H);
        put_out(p, t, first, last);
        meet(p, ranks, &turn);
    }
}

/* ROWS units from u on. The gradient of step t + 1's gates becomes that of step t's. */
INLINE void backward_tile(const struct window *p, int64_t t, int64_t u, int64_t b, int wide,
                          struct part d)
{
    const int64_t H = p->units, B = p->batch, all = H * B;
    const float *from = p->exchange + (t + 1) % 2 * 4 * all;
    float *to = p->exchange + (t + 2) % 2 * 4 * all;   /* where sums wait, too */
    vec sums[ROWS][WIDE];
    if (d.last && t >= 0)
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < wide; v++) {
                const int64_t at = (u + r) * B + b + v * LANES;
                for (int k = 0; k < 4; k++) {
                    __builtin_prefetch(p->gates + t * 4 * all + k * all + at);
                    __builtin_prefetch(p->z + ((k * H + u + r) * p->steps + t) * B
                                       + b + v * LANES, 1);
                }
                __builtin_prefetch(p->tanh_c + t * all + at);
                __builtin_prefetch(p->c + t * all + at);
                __builtin_prefetch(p->gc + at);
            }
    product(p->packed + d.k * H + u * d.n, from + d.k * B + b, B, wide, d,
            to + u * B + b, ROWS, 0, sums);
    if (!d.last)
        return;
    for (int v = 0; v < wide; v++) {
        const int64_t column = b + v * LANES;
        float gy[ROWS][LANES] = {{0}};
        if (p->gy && t >= 0)
            for (int k = 0; k < LANES; k++)
                for (int r = 0; r < ROWS; r++)
                    gy[r][k] = p->gy[(t * B + column + k) * H + u + r];
        for (int r = 0; r < ROWS; r++) {
            const int64_t at = (u + r) * B + column;
            vec gh = sums[r][v];
            if (p->recurrent_mask)
                gh *= LOAD(p->recurrent_mask + at);
            if (p->mask)
                gh += LOAD(p->h + at);
            if (t < 0) {
                STORE(p->gh + at, gh);
                continue;
            }
            gh += LOAD(gy[r]);
            vec gc = LOAD(p->gc + at), gc_past = {0};
            if (p->mask) {
                /* The gradient is linear in gh and gc: at masked places both pass by. */
                const bits on = LOAD(p->mask + t * B + column) != (vec){0};
                STORE(p->h + at, choose(on, (vec){0}, gh));
                gc_past = choose(on, (vec){0}, gc);
                gh = choose(on, gh, (vec){0});
                gc = choose(on, gc, (vec){0});
            }
            const float *gates = p->gates + t * 4 * all + at;
            const vec i = LOAD(gates), f = LOAD(gates + all);
            const vec o = LOAD(gates + 2 * all), g = LOAD(gates + 3 * all);
            const vec tanh_c = LOAD(p->tanh_c + t * all + at);
            gc += gh * o * (1 - tanh_c * tanh_c);
            const vec gz[4] = {gc * g * i * (1 - i), gc * LOAD(p->c + t * all + at) * f * (1 - f),
                               gh * tanh_c * o * (1 - o), gc * i * (1 - g * g)};
            STORE(p->gc + at, gc * f + gc_past);
            for (int k = 0; k < 4; k++) {
                STORE(to + k * all + at, gz[k]);
                STORE(p->z + ((k * H + u + r) * p->steps + t) * B + column, gz[k]);
            }
        }
    }
}

static void backward_part(void *window, int64_t rank, int64_t ranks)
{
    struct window *p = window;
    const int64_t H = p->units, tiles = H / ROWS;
    const int64_t first = tiles * rank / ranks * ROWS, last = tiles * (rank + 1) / ranks * ROWS;
    long turn = 0;
    for (int64_t k = 0; k < 4 * H; k += DEEP) {
        const int64_t n = 4 * H - k < DEEP ? 4 * H - k : DEEP;
        for (int64_t u = first; u < last; u += ROWS) {
            float *tile = p->packed + k * H + u * n;
            for (int64_t i = 0; i < n; i++)
                for (int r = 0; r < ROWS; r++)
                    tile[i * ROWS + r] = p->w_h[(k + i) * H + u + r];
        }
    }
    for (int64_t t = p->steps - 1; t >= (p->gh ? -1 : 0); t--) {
        /* Behind the last step there is nothing to multiply. */
        const int64_t depth = t + 1 < p->steps ? 4 * H : 0;
        TILES(backward_tile, ROWS, depth);
        meet(p, ranks, &turn);
    }
}

void forward(struct window *p, int64_t threads) { in_threads(forward_part, p, threads); }

void backward(struct window *p, int64_t threads) { in_threads(backward_part, p, threads); }
