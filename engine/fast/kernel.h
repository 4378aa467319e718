/* What winograd.c and recurrent.c share: vectors of floats, and work shared among threads.
 *
 * No intrinsics: the vector extensions of GCC and Clang serve every instruction set.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#define INSTRUCTIONS "AVX-512"
#elif defined(__AVX2__)
enum { LANES = 8 };
#define INSTRUCTIONS "AVX2"
#elif defined(__AVX__)
enum { LANES = 8 };
#define INSTRUCTIONS "AVX"
#elif defined(__aarch64__)
enum { LANES = 4 };
#define INSTRUCTIONS "NEON"
#elif defined(__SSE2__)
enum { LANES = 4 };
#define INSTRUCTIONS "SSE2"
#else
enum { LANES = 4 };
#define INSTRUCTIONS "4 lanes"
#endif

#define DIGITS(n) #n
#define VERSION(major, minor) DIGITS(major) "." DIGITS(minor)
#if defined(__clang__)
#define COMPILER "clang " VERSION(__clang_major__, __clang_minor__)
#else
#define COMPILER "gcc " VERSION(__GNUC__, __GNUC_MINOR__)
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));
/* A vec in memory, at any address and over any float array. */
typedef float mem __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define LOAD(p) (*(const mem *)(p))
#define STORE(p, v) (*(mem *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))

/* Floats of a vec: arrays come in multiples of it. */
int lanes(void) { return LANES; }

/* For what, and by what, this was compiled. */
const char *kernel(void) { return INSTRUCTIONS ", " COMPILER; }

/* Whether this CPU has the instructions; what a system tells of it may hide or promise some. */
int supported(void)
{
    int all = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(__AVX__)
    all = all && __builtin_cpu_supports("avx");
#endif
#if defined(__FMA__)
    all = all && __builtin_cpu_supports("fma");
#endif
#if defined(__AVX2__)
    all = all && __builtin_cpu_supports("avx2");
#endif
#if defined(__BMI2__)
    all = all && __builtin_cpu_supports("bmi2");
#endif
#if defined(__AVX512F__)
    all = all && __builtin_cpu_supports("avx512f");
#endif
#if defined(__AVX512VL__)
    all = all && __builtin_cpu_supports("avx512vl");
#endif
#if defined(__AVX512DQ__)
    all = all && __builtin_cpu_supports("avx512dq");
#endif
#if defined(__AVX512BW__)
    all = all && __builtin_cpu_supports("avx512bw");
#endif
#endif
    return all;
}

/* a where the bits are set, else b. */
INLINE vec choose(bits where, vec a, vec b)
{
    return (vec)((where & (bits)a) | (~where & (bits)b));
}

/* Of equal ones the first; what is not a number wins. */
INLINE vec larger(vec a, vec b)
{
    return choose(~(b <= a) & (a == a), b, a);
}

/* ---- threads ---------------------------------------------------------------------------- */

enum { MOST_THREADS = 256 };

struct team {
    void (*work)(void *job, int64_t rank, int64_t ranks);
    void *job;
    atomic_long joined, ranks;  /* ranks is 0 until it is known how many there are */
};

static void *join_team(void *p)
{
    struct team *team = p;
    long rank = atomic_fetch_add(&team->joined, 1), ranks;
    while ((ranks = atomic_load(&team->ranks)) == 0)
        sched_yield();
    team->work(team->job, rank, ranks);
    return NULL;
}

/* work(job, rank, ranks) in as many threads as can be started, `threads` at most; this one is
 * rank 0. Nobody begins before it is known how many there are, so they may wait for one another:
 * neither a thread that cannot start nor a signal leaves the others waiting. */
static void in_threads(void (*work)(void *, int64_t, int64_t), void *job, int64_t threads)
{
    struct team team = {work, job, 1, 0};
    pthread_t others[MOST_THREADS];
    long started = 0;
    while (started + 1 < threads && started < MOST_THREADS
           && pthread_create(&others[started], NULL, join_team, &team) == 0)
        started++;
    atomic_store(&team.ranks, started + 1);
    work(job, 0, started + 1);
    for (long k = 0; k < started; k++)
        pthread_join(others[k], NULL);
}
