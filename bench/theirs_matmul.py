"""PyTorch's side of the matmul rows: the three products of a linear layer, in GFLOP/s.

Each product is measured as it is usually written (a new result) and into a given buffer; the faster counts.
"""

from common import DTYPES, emit, median_seconds, parser, torch_dtype, torch_ready


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--m", type=int, default=512, help="rows of x")
    p.add_argument("--k", type=int, default=256, help="width of x")
    p.add_argument("--n", type=int, default=1024, help="width of y")
    p.add_argument("--repeat", type=int, default=50)
    p.add_argument("--dtype", choices=DTYPES, default="bf16")
    args = p.parse_args()
    torch = torch_ready()
    dtype = torch_dtype(torch, args.dtype)

    def matrix(rows, columns):
        return torch.randn(rows, columns).to(dtype)

    x_mk, w_nk, dy_mn = matrix(args.m, args.k), matrix(args.n, args.k), matrix(args.m, args.n)
    y_mn, dx_mk, dw_nk = torch.empty_like(dy_mn), torch.empty_like(x_mk), torch.empty_like(w_nk)
    products = {
        "forward": (lambda: torch.nn.functional.linear(x_mk, w_nk), lambda: torch.mm(x_mk, w_nk.t(), out=y_mn)),
        "input": (lambda: dy_mn @ w_nk, lambda: torch.mm(dy_mn, w_nk, out=dx_mk)),
        "weight": (lambda: dy_mn.t() @ x_mk, lambda: torch.mm(dy_mn.t(), x_mk, out=dw_nk)),
    }
    flop = 2 * args.m * args.k * args.n
    with torch.inference_mode():
        rates = {
            name: flop / 1e9 / min(median_seconds(way, args.repeat, warmup=5) for way in ways)
            for name, ways in products.items()
        }
    emit(**rates)


if __name__ == "__main__":
    main()
