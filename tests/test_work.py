"""Work is what an operator calculates, whatever torch moves for it."""

import torch
import torch.nn.functional as F

from evaluator.work import Work


def work(f, *shapes):
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    with Work() as counted:
        f(*inputs).sum().backward()
    return counted.done


def test_a_product_counts_its_multiplications_and_additions_and_two_more_such_products_backward():
    assert work(torch.matmul, (3, 5), (5, 7)) == 3 * 2 * 3 * 5 * 7
    assert work(torch.matmul, (2, 3, 5), (2, 5, 7)) == 3 * 2 * 2 * 3 * 5 * 7


def test_a_bias_is_no_product():
    assert work(F.linear, (3, 5), (7, 5), (7,)) == 3 * 2 * 3 * 5 * 7


def test_a_convolution_counts_as_its_products_do():
    assert work(F.conv1d, (2, 3, 16), (4, 3, 5)) == 3 * 2 * (2 * 4 * 12) * (3 * 5)


def test_slices_of_a_sequence_are_linear_though_their_gradients_are_summed_in_full_length():
    def by_chunks(x):
        return torch.cat([x[i : i + 4].tanh() for i in range(0, len(x), 4)])

    assert work(by_chunks, (256, 8)) == 2 * work(by_chunks, (128, 8))


def test_writes_in_place_are_linear_too():
    def in_place(x):
        o = torch.zeros_like(x)
        for i in range(0, len(x), 4):
            o[i : i + 4] = x[i : i + 4] * 2
        return o

    assert work(in_place, (256, 8)) == 2 * work(in_place, (128, 8))


def test_all_pairs_of_a_backward_pass_are_counted():
    class Pairs(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * grad + 0 * (x[:, None] * x[None]).sum(1)

    assert work(Pairs.apply, (256, 8)) > 3.5 * work(Pairs.apply, (128, 8))
